from .mask_rcnn_R_50_FPN_1x_baseline import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.backbone.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
train.output_dir = "out/mask_rcnn_R_101_FPN_1x_baseline"
