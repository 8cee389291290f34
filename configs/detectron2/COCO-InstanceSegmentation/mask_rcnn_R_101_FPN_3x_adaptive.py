from .mask_rcnn_R_101_FPN_3x_baseline import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.aa.filter = "adaptive"
train.output_dir = "out/mask_rcnn_R_101_FPN_3x_adaptive"
