"""Any timm network that gives maps at several strides as a backbone, anti-aliased or plain."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.utils import freeze
from torch import nn

from aa_plugins.config import AAConfig
from aa_plugins.detectron2.backbone import antialias_backbone, build_fpn
from aa_plugins.detectron2.config import aa_config

STAGES = ("res2", "res3", "res4", "res5")
STRIDES = {f"res{level}": 2**level for level in range(1, 7)}


class TIMMBackbone(Backbone):
    """A timm network under its own parameter names, giving an NCHW map for each stride.

    Args:
        name: timm's name of the network.
        aa: AAConfig or its fields; filter="none" keeps the network plain.
        out_features: which maps to give, res1 to res6 at strides 2 to 64; of several maps at one
            stride, the last.
        pretrained: download timm's weights.
        freeze_at: stages to freeze, 1 being the stem and 2 the stem and res2; new filters train.
        in_channels: of the image.
        drop_path_rate: of stochastic depth.

    Raises:
        ValueError: for an unknown name, or where the network has no map at the stride of an output.
    """

    def __init__(
        self,
        name: str,
        aa: AAConfig | Mapping[str, Any] | None = None,
        out_features: Sequence[str] = STAGES,
        pretrained: bool = False,
        freeze_at: int = 0,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        network = _create(name, pretrained, in_channels, drop_path_rate)
        rows = {row["reduction"]: index for index, row in enumerate(network.feature_info)}
        known = [stage for stage, stride in STRIDES.items() if stride in rows]
        missing = [stage for stage in out_features if stage not in known]
        if missing or not out_features:
            raise ValueError(
                f"out_features={list(out_features)}: {name} has maps at strides {sorted(rows)}, "
                f"choose from {', '.join(known) or 'those of a hierarchical network'}"
            )
        self._out_features = [stage for stage in known if stage in out_features]
        self._out_feature_strides = {stage: STRIDES[stage] for stage in self._out_features}
        self._indices = [rows[stride] for stride in self._out_feature_strides.values()]
        self._out_feature_channels = {
            stage: network.feature_info[index]["num_chs"]
            for stage, index in zip(self._out_features, self._indices)
        }
        stages = [network.feature_info[rows[s]]["module"] for s in sorted(rows) if s >= 4]
        # Weights past the last map would never get a gradient, which DDP takes for an error.
        network.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        if freeze_at >= 1:
            submodules = _modules_up_to(network, stages[max(freeze_at - 2, 0)])
            freeze(network, submodules[:-1] if freeze_at == 1 else submodules)
        # What the pyramid reads must be filtered: the conversion follows the pass that gives it.
        network.forward = partial(self._maps, network)
        antialias_backbone(network, aa)
        del network.forward
        self.network = network

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """(N, C, H, W) → maps by name, (N, C', H/stride, W/stride)."""
        return dict(zip(self._out_features, self._maps(self.network, x)))

    def _maps(self, network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        return network.forward_intermediates(
            x, indices=self._indices, output_fmt="NCHW", intermediates_only=True
        )


@BACKBONE_REGISTRY.register()
def build_aa_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The timm network of `MODEL.TIMM`, with the filters of `MODEL.AA`."""
    return TIMMBackbone(
        name=cfg.MODEL.TIMM.NAME,
        aa=aa_config(cfg),
        out_features=cfg.MODEL.TIMM.OUT_FEATURES,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
    )


@BACKBONE_REGISTRY.register()
def build_aa_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The same with a feature pyramid, whose P6 is filtered where `MODEL.AA.P6` says so."""
    return build_fpn(cfg, build_aa_timm_backbone(cfg, input_shape))


def _create(name: str, pretrained: bool, in_channels: int, drop_path_rate: float) -> nn.Module:
    if not timm.is_model(name.split(".")[0]):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "timm.list_models() lists them"
        raise ValueError(f"timm has no model {name!r}: {hint}")
    options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if name.startswith("swin"):
        options["strict_img_size"] = False  # else it takes only the size it was trained at
    network = timm.create_model(
        name, pretrained=pretrained, num_classes=0, in_chans=in_channels, **options
    )
    if hasattr(getattr(network, "patch_embed", None), "dynamic_img_pad"):
        network.patch_embed.dynamic_img_pad = True  # sizes that a patch doesn't divide
    return network


def _modules_up_to(network: nn.Module, name: str) -> list[str]:
    """Names of the modules that run before the one called `name`, and that one."""
    modules, prefix, parent = [], "", network
    for part in name.split("."):
        for child, _ in parent.named_children():
            if child == part:
                break
            modules.append(prefix + child)
        parent, prefix = getattr(parent, part), f"{prefix}{part}."
    return [*modules, name]
