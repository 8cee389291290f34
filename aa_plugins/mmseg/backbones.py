"""Backbones of MMSegmentation with anti-aliasing: the host's own class, converted once built."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit, initialize
from mmseg.models.backbones import ResNet, ResNetV1c
from mmseg.registry import MODELS

import aa_plugins.timm  # noqa: F401  only registration
from aa_plugins.config import AAConfig
from aa_plugins.layers import filters_of, reset_filters
from aa_plugins.surgery import antialias


class _StartsFilters:
    """Filters start as `init` says whatever initialises the rest, or as a checkpoint has them."""

    def init_weights(self) -> None:
        """Initialise as the host does, the filters last but for what is loaded from files."""
        if self.is_init:
            return
        entries = self.init_cfg
        listed = entries if isinstance(entries, (list, tuple)) else [entries] if entries else []
        files = [entry for entry in listed if entry["type"] in ("Pretrained", PretrainedInit)]
        self.init_cfg = [entry for entry in listed if entry not in files]
        super().init_weights()
        reset_filters(self)
        initialize(self, files)
        self.init_cfg = entries


class _Antialiased(_StartsFilters):
    """Converts a mmseg ResNet at the end of its construction, and keeps its filters alive."""

    def __init__(self, *args: Any, aa: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aa_report = antialias(self, AAConfig.of(aa))
        _log(f"anti-aliased {type(self).__name__}:\n{self.aa_report}")
        self._release_filters()

    def train(self, mode: bool = True) -> _Antialiased:
        """Keep frozen stages and norms as the host does, but never a filter at its start."""
        super().train(mode)
        self._release_filters()
        return self  # which the host forgets, so that eval() would give None

    def _release_filters(self) -> None:
        """Filters are new: `frozen_stages` and `norm_eval` would leave them untrained for good."""
        for _, layer in filters_of(self):
            layer.requires_grad_(True)
            layer.train(self.training)


@MODELS.register_module()
class AAResNet(_Antialiased, ResNet):
    """mmseg's ResNet with anti-aliasing; `aa` holds AAConfig's fields.

    `frozen_stages` and `norm_eval` spare the filters, which have no pretrained weights to keep.
    """


@MODELS.register_module()
class AAResNetV1c(_Antialiased, ResNetV1c):
    """mmseg's ResNetV1c (3×3 deep stem) with anti-aliasing; `aa` holds AAConfig's fields."""


@MODELS.register_module()
class AATIMMBackbone(_StartsFilters, BaseModule):
    """Feature maps, NCHW, of an anti-aliased timm model.

    Args:
        model_name: a timm model that has an `aa_` version, with or without that prefix.
        aa: AAConfig's fields.
        out_indices: levels to return, from the finest; all by default.
        pretrained: load timm's weights (a download, unless cached).
        checkpoint_path: weights of the plain or of the anti-aliased model.
        **kwargs: passed on to timm.

    Raises:
        ValueError: where timm has no such model, or one that isn't converted.
    """

    def __init__(
        self,
        model_name: str,
        aa: Mapping[str, Any] | None = None,
        out_indices: tuple[int, ...] | None = None,
        pretrained: bool = False,
        checkpoint_path: str = "",
        in_channels: int = 3,
        init_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        name = model_name.removeprefix("aa_")
        if not timm.is_model(f"aa_{name}"):
            close = get_close_matches(name.split(".")[0], timm.list_models(), n=1)
            guess = f": did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"model_name={name!r} is no model of timm with an aa_ version{guess}")
        self.timm_model = timm.create_model(
            f"aa_{name}",
            pretrained=pretrained,
            checkpoint_path=checkpoint_path,
            in_chans=in_channels,
            features_only=True,
            out_indices=out_indices,
            aa=AAConfig.of(aa),
            **kwargs,
        )
        self.out_indices = tuple(range(len(self.timm_model.feature_info.channels())))
        self.channels = self.timm_model.feature_info.channels()
        # timm has initialised or loaded the weights: mmengine shall not do it again.
        self._is_init = init_cfg is None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(N, C, H, W) → one map a level, from the finest to the coarsest."""
        return tuple(self.timm_model(x))


def _log(message: str) -> None:
    MMLogger.get_current_instance().info(message)
