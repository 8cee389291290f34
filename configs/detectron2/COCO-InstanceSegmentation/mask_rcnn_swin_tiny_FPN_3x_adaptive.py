from .mask_rcnn_convnext_tiny_FPN_3x_adaptive import (
    dataloader,
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.backbone.bottom_up.name = "swin_tiny_patch4_window7_224"
model.backbone.bottom_up.drop_path_rate = 0.2
train.output_dir = "out/mask_rcnn_swin_tiny_FPN_3x_adaptive"
