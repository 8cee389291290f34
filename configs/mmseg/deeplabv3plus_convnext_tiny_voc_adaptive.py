_base_ = [
    "./_base_/models/deeplabv3plus_timm.py",
    "./_base_/datasets/voc12_aug.py",
    "./_base_/schedules/adamw_80k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        model_name="convnext_tiny.fb_in1k",
    ),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21),
)
