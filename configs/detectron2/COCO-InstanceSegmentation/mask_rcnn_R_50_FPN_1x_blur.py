from .mask_rcnn_R_50_FPN_1x_baseline import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.aa.filter = "blur"
train.output_dir = "out/mask_rcnn_R_50_FPN_1x_blur"
