_base_ = [
    "./_base_/models/deeplabv3plus_timm.py",
    "./_base_/datasets/cityscapes.py",
    "./_base_/schedules/adamw_80k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(
        model_name="swin_tiny_patch4_window7_224.ms_in1k",
        strict_img_size=False,
    ),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)
