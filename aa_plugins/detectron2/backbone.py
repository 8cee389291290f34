"""Anti-aliased ResNet backbones, alone and with a feature pyramid."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    FPN,
    ROI_HEADS_REGISTRY,
    Backbone,
    build_resnet_backbone,
)
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.detectron2.config import aa_config
from aa_plugins.detectron2.freezing import unfreeze_filters
from aa_plugins.surgery import antialias, build_filter

logger = logging.getLogger(__name__)


def antialias_backbone(
    backbone: nn.Module, aa: AAConfig | Mapping[str, Any] | None = None
) -> nn.Module:
    """Convert `backbone` in place, log the report, and return it.

    The callable for LazyConfig, of any backbone, or of the stage that a C4 model has in its head:
    `model.backbone.bottom_up = L(antialias_backbone)(backbone=model.backbone.bottom_up, aa=...)`.

    Args:
        backbone: a ResNet, or any network that `aa_plugins.antialias` takes.
        aa: AAConfig or its fields; filter="none" leaves the backbone as it is.
    """
    if not isinstance(backbone, nn.Module):  # a stage, which Detectron2 builds as a list of blocks
        backbone = nn.Sequential(*backbone)
    report = antialias(backbone, AAConfig.of(aa))
    unfreeze_filters(backbone)
    logger.info(f"Anti-aliasing of {type(backbone).__name__}:\n{report}")
    return backbone


class AALastLevelMaxPool(LastLevelMaxPool):
    """P6 from P5, filtered before it is subsampled; `LastLevelMaxPool` only subsamples.

    Args:
        channels: of the pyramid.
        aa: AAConfig or its fields; filter="none" subsamples only.
    """

    def __init__(self, channels: int, aa: AAConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        aa = AAConfig.of(aa)
        self.filter = None
        if aa.filter != "none":
            # P6 may be one pixel, on which a batch norm can't be trained with a single image.
            self.filter = build_filter(aa, channels, stride=2, norm="channel")

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, C, H, W) → one map, (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        return super().forward(x) if self.filter is None else [self.filter(x)]


@BACKBONE_REGISTRY.register()
def build_aa_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A ResNet as `build_resnet_backbone` makes it, with the filters of `MODEL.AA`.

    A C4 model has its last stage in the ROI head: `MODEL.ROI_HEADS.NAME: "AARes5ROIHeads"`.
    """
    return antialias_backbone(build_resnet_backbone(cfg, input_shape), aa_config(cfg))


@BACKBONE_REGISTRY.register()
def build_aa_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The same with a feature pyramid, whose P6 is filtered where `MODEL.AA.P6` says so."""
    return build_fpn(cfg, build_aa_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_aa_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """RetinaNet's: a pyramid with strided convolutions for P6 and P7, which `MODEL.AA.P6` filters.

    Built from `MODEL.FPN` as `build_retinanet_resnet_fpn_backbone` does.
    """
    bottom_up = build_aa_resnet_backbone(cfg, input_shape)
    top_feature = cfg.MODEL.FPN.IN_FEATURES[-1]
    channels = bottom_up.output_shape()[top_feature].channels
    top = LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS, top_feature)
    if cfg.MODEL.AA.P6 and cfg.MODEL.AA.FILTER != "none":
        # Both are strided 3×3 convolutions, the first of which looks like a stem.
        aa = replace(aa_config(cfg), stem=True, include=(), exclude=())
        antialias(top, aa, example=torch.zeros(1, channels, 64, 64))
    return _fpn(cfg, bottom_up, top)


def build_fpn(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """The feature pyramid that `MODEL.FPN` describes, on `bottom_up`."""
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    filtered = cfg.MODEL.AA.P6
    top = AALastLevelMaxPool(channels, aa_config(cfg)) if filtered else LastLevelMaxPool()
    # The coarsest level, which is p5 but for networks with other strides than usual.
    top.in_feature = cfg.MODEL.FPN.IN_FEATURES[-1].replace("res", "p")
    return _fpn(cfg, bottom_up, top)


def _fpn(cfg: CfgNode, bottom_up: Backbone, top: nn.Module) -> FPN:
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


@ROI_HEADS_REGISTRY.register()
class AARes5ROIHeads(Res5ROIHeads):
    """The head of a C4 model, with the filters of `MODEL.AA` in its res5."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        stage, channels = super()._build_res5_block(cfg)
        return antialias_backbone(stage, aa_config(cfg)), channels
