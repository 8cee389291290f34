from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from aa_plugins.detectron2 import antialias_backbone

_zoo = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, train = _zoo.model, _zoo.dataloader, _zoo.train
optimizer, lr_multiplier = _zoo.optimizer, _zoo.lr_multiplier

model.backbone.in_features = list(model.backbone.bottom_up.out_features)
model.backbone.bottom_up = L(antialias_backbone)(
    backbone=model.backbone.bottom_up,
    aa=dict(filter="none"),
)
train.output_dir = "out/mask_rcnn_R_50_FPN_1x_baseline"
