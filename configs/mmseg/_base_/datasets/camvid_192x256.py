# CamVid at a size that two CPU cores train in minutes.
_base_ = "./camvid.py"
crop_size = (160, 224)
resize = dict(type="Resize", scale=(256, 192), keep_ratio=False)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="CheckLabels", num_classes=11),
    resize,
    dict(type="RandomCrop", crop_size=crop_size),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    resize,
    dict(type="LoadAnnotations"),
    dict(type="CheckLabels", num_classes=11),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
