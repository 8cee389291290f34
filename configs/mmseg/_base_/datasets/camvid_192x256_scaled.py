# CamVid at 192×256, trained with more augmentation than networks from scratch are.
_base_ = "./camvid_192x256.py"
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckLabels", num_classes=11),
    dict(type="RandomResize", scale=(256, 192), ratio_range=(0.75, 2.0), keep_ratio=False),
    dict(type="RandomCrop", crop_size=(160, 224), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
