# DeepLabv3+ on four feature maps of a timm model (strides 4, 8, 16, 32); `model_name` and the
# channels come from the config that uses it.
_base_ = "./deeplabv3plus_r101.py"
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="AATIMMBackbone",
        model_name="convnext_tiny.fb_in1k",
        pretrained=True,
        out_indices=(0, 1, 2, 3),
        aa=dict(filter="adaptive"),
    ),
    decode_head=dict(in_channels=768, c1_in_channels=96),
    auxiliary_head=dict(in_channels=384),
)
