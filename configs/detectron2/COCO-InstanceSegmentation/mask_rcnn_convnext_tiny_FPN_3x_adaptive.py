from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from aa_plugins.detectron2 import TIMMBackbone

from .mask_rcnn_R_50_FPN_3x_baseline import dataloader, lr_multiplier, model, train

# timm's weights for ImageNet; to test other weights without a download: pretrained=False.
model.backbone.bottom_up = L(TIMMBackbone)(
    name="convnext_tiny",
    aa=dict(filter="adaptive"),
    pretrained=True,
    drop_path_rate=0.4,
)
model.pixel_mean = [123.675, 116.28, 103.53]
model.pixel_std = [58.395, 57.12, 57.375]
model.input_format = dataloader.train.mapper.image_format = "RGB"
optimizer = get_config("common/optim.py").AdamW
optimizer.lr = 1e-4
optimizer.weight_decay = 0.05
train.init_checkpoint = ""
train.output_dir = "out/mask_rcnn_convnext_tiny_FPN_3x_adaptive"
