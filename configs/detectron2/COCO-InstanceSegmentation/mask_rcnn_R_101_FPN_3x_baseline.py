from detectron2.model_zoo import get_config

from .mask_rcnn_R_101_FPN_1x_baseline import dataloader, model, optimizer, train

lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_3x
train.max_iter = 270000
train.output_dir = "out/mask_rcnn_R_101_FPN_3x_baseline"
