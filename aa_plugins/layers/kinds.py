"""Filters by the names that AAConfig has for them."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from torch import nn

from aa_plugins.config import FILTERS, AAConfig


@cache
def filter_classes() -> dict[str, type[nn.Module]]:
    """The class of every filter, by name."""
    found = {}
    for name, place in FILTERS.items():
        file, _, kind = place.partition(".")
        found[name] = getattr(import_module(f"aa_plugins.layers.{file}"), kind)
    return found


def kind_of(module: nn.Module) -> str | None:
    """The name of a filter's kind; None for any other module."""
    names = {kind: name for name, kind in filter_classes().items()}
    return next((names[kind] for kind in type(module).__mro__ if kind in names), None)


def build_filter(
    config: AAConfig,
    channels: int,
    stride: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    norm: str = "batch",
) -> nn.Module:
    """The filter that `config` asks for, for a map of `channels`; `norm` as `norm_for` says."""
    shared = {"stride": stride, "pad_mode": config.pad_mode, "device": device, "dtype": dtype}
    return filter_classes()[config.filter].of_config(config, channels, norm=norm, **shared)
