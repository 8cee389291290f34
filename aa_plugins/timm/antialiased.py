"""What an anti-aliased timm model adds to the plain one: it loads plain weights, and gives NCHW."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import Format
from timm.models import FeatureInfo
from torch import nn

from aa_plugins.checkpoints import check_finite
from aa_plugins.layers.in_place import InPlace, mix_in
from aa_plugins.surgery import filter_keys

logger = logging.getLogger(__name__)


class Antialiased(InPlace):
    """Accepts, under strict=True too, a checkpoint that holds no filter at all."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, but a checkpoint of the plain model is complete: filters keep their start."""
        check_finite(state_dict, self.state_dict())
        added = filter_keys(self)
        if strict and added and added.isdisjoint(state_dict):
            logger.info("A checkpoint of the plain model: the filters keep their start")
            own = self.state_dict()
            completed = OrderedDict(state_dict)
            completed.update((key, own[key]) for key in added)
            completed._metadata = getattr(state_dict, "_metadata", {})
            state_dict = completed
        return super().load_state_dict(state_dict, strict, assign)


class AntialiasedNHWC(Antialiased):
    """Also hands out NCHW the feature maps that the plain model hands out NHWC."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor] | dict[str, torch.Tensor]:
        """(N, C, H, W) → a map (N, C', H', W') for each stage."""
        maps = super().forward(x)
        if isinstance(maps, dict):
            return {name: _channels_first(map_) for name, map_ in maps.items()}
        return [_channels_first(map_) for map_ in maps]


def become_antialiased(model: nn.Module) -> None:
    """Give a converted timm model the behaviours above, in place."""
    extracts_features = isinstance(getattr(model, "feature_info", None), FeatureInfo)
    if extracts_features and getattr(model, "output_fmt", Format.NCHW) == Format.NHWC:
        model.output_fmt = Format.NCHW
        mix_in(model, AntialiasedNHWC)
    else:
        mix_in(model, Antialiased)


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2).contiguous()
