# A DeepLabv3+ small enough to train on two CPU cores: ResNet-18 at output stride 16, from scratch.
_base_ = "./deeplabv3plus_r101.py"
model = dict(
    pretrained=None,
    backbone=dict(depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(
        in_channels=512,
        channels=128,
        dilations=(1, 4, 8, 12),
        c1_in_channels=64,
        c1_channels=48,
        num_classes=11,
    ),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=11),
)
