"""Configs, weights and measures that the tests of this folder share."""

from pathlib import Path

import torch
from torch import nn

from aa_plugins.surgery import filter_keys

CONFIGS = Path(__file__).resolve().parents[2] / "configs/detectron2"
SHAPES = str(CONFIGS / "Shapes/mask_rcnn_R_18_FPN_baseline.yaml")

# A Mask R-CNN in which the backbone alone has its real width.
TINY = (
    "MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.ROI_MASK_HEAD.CONV_DIM 16 "
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN 60 MODEL.RPN.PRE_NMS_TOPK_TEST 60 "
    "MODEL.RPN.POST_NMS_TOPK_TRAIN 30 MODEL.RPN.POST_NMS_TOPK_TEST 30 "
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16 SOLVER.IMS_PER_BATCH 2 "
    "INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 TEST.DETECTIONS_PER_IMAGE 10"
).split()

# The same as a LazyConfig, with ResNet-18 from Detectron2's own zoo.
LAZY = """
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from aa_plugins.detectron2 import antialias_backbone, coco_dataset

_zoo = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, train = _zoo.model, _zoo.dataloader, _zoo.train
optimizer, lr_multiplier = _zoo.optimizer, _zoo.lr_multiplier
_bottom_up = model.backbone.bottom_up
_bottom_up.stages.depth = 18
del _bottom_up.stages["stride_in_1x1"]
model.backbone.in_features = list(_bottom_up.out_features)
model.backbone.bottom_up = L(antialias_backbone)(backbone=_bottom_up, aa=dict(filter="adaptive"))
model.proposal_generator.pre_nms_topk = model.proposal_generator.post_nms_topk = (30, 30)
model.roi_heads.num_classes = 7
model.roi_heads.batch_size_per_image = 8
for _split, _name in ((dataloader.train, "train"), (dataloader.test, "val")):
    _split.dataset = L(coco_dataset)(
        name=f"lazy_shapes_{_name}",
        json_file=f"shapes/instances_{_name}.json",
        image_root=f"shapes/{_name}",
        filter_empty=_name == "train",
    )
    _split.mapper.augmentations[0].short_edge_length = (96, 96)
    _split.num_workers = 0
dataloader.train.mapper.instance_mask_format = "bitmask"
dataloader.train.total_batch_size = 2
dataloader.evaluator.dataset_name = "lazy_shapes_val"
train.max_iter = 2
train.seed = 1
train.init_checkpoint = ""
"""


@torch.no_grad()
def scramble(model: nn.Module) -> None:
    """Weights that hide nothing: every norm and bias perturbed, and heads that decide."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif "predictor" in name or "rpn_head" in name:
            parameter.normal_(0, 0.5 / parameter[0].numel() ** 0.5)


@torch.no_grad()
def calibrate(model: nn.Module, images: torch.Tensor) -> None:
    """Let every batch norm learn the statistics of `images`, (N, 3, H, W)."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    model.train()
    model(images)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def decide(model: nn.Module) -> nn.Module:
    """Random weights with which a Mask R-CNN is certain of many instances, near its anchors."""
    scramble(model)
    calibrate(model.backbone.bottom_up, 128 * torch.randn(1, 3, 192, 256))
    model.roi_heads.box_predictor.cls_score.weight.mul_(4)
    model.roi_heads.box_predictor.bbox_pred.weight.mul_(0.1)
    return model.eval()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return ((a - b).abs().max() / a.abs().max()).item()


def parameters_of_filters(model: nn.Module) -> set[str]:
    """Keys that a checkpoint of the plain model misses; torch doesn't report counters of norms."""
    return {key for key in filter_keys(model) if not key.endswith("num_batches_tracked")}
