"""Detectron2 host: importing it registers backbones and ROI heads."""

from aa_plugins.detectron2 import cityscapes  # noqa: F401 - only registration
from aa_plugins.detectron2.backbone import (
    AALastLevelMaxPool,
    AARes5ROIHeads,
    antialias_backbone,
    build_aa_resnet_backbone,
    build_aa_resnet_fpn_backbone,
    build_aa_retinanet_resnet_fpn_backbone,
)
from aa_plugins.detectron2.config import add_aa_config
from aa_plugins.detectron2.consistency import (
    ShiftConsistencyEvaluator,
    ShiftedInference,
    TruthMapper,
)
from aa_plugins.detectron2.consistent import ConsistentRCNN
from aa_plugins.detectron2.datasets import coco_dataset
from aa_plugins.detectron2.stride import total_stride
from aa_plugins.detectron2.timm_backbone import (
    TIMMBackbone,
    build_aa_timm_backbone,
    build_aa_timm_fpn_backbone,
)

__all__ = [
    "AALastLevelMaxPool",
    "AARes5ROIHeads",
    "ConsistentRCNN",
    "ShiftConsistencyEvaluator",
    "ShiftedInference",
    "TIMMBackbone",
    "TruthMapper",
    "add_aa_config",
    "antialias_backbone",
    "build_aa_resnet_backbone",
    "build_aa_resnet_fpn_backbone",
    "build_aa_retinanet_resnet_fpn_backbone",
    "build_aa_timm_backbone",
    "build_aa_timm_fpn_backbone",
    "coco_dataset",
    "total_stride",
]
