# DeepLabv3+ with EfficientNet-Lite0 at output stride 16. The backbone's ImageNet weights come from
# tools/efficientnet_lite.py --host mmseg --out work_dirs/weights/lite0_mmseg.pth; with a
# connection, backbone=dict(pretrained=True, init_cfg=None) downloads timm's.
_base_ = "./deeplabv3plus_timm.py"
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        model_name="tf_efficientnet_lite0",
        pretrained=False,
        out_indices=(1, 2, 3, 4),
        output_stride=16,
        init_cfg=dict(type="Pretrained", checkpoint="work_dirs/weights/lite0_mmseg.pth"),
        aa=dict(filter="none"),
    ),
    decode_head=dict(
        in_channels=320,
        channels=128,
        dilations=(1, 3, 6, 9),
        c1_in_channels=24,
        c1_channels=48,
        num_classes=11,
    ),
    auxiliary_head=None,
)
