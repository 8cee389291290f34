"""What a search for sites finds: rows of data that the rules yield and `antialias` reads."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn

from aa_plugins.layers.kinds import filter_classes
from aa_plugins.layers.strided import FilterBefore, Filtered

# Patch mergings of the Swins of timm, torchvision, transformers, MMSegmentation and Detectron2.
MERGINGS = re.compile(r"\w*PatchMerging(V2)?")

# Every module of a network with its name; shared modules have their first name.
Names = dict[nn.Module, str]
# Classes that blur already, by name: timm's, which ours shares, and our others.
BLURS = re.compile("|".join(["BlurPool2d", *(k.__name__ for k in filter_classes().values())]))


@dataclass(frozen=True)
class Site:
    """One place where resolution is lowered.

    Attributes:
        name: the module that carries the stride.
        kind: "max_pool", "avg_pool", "conv", "shortcut", "merging", "stem" or "dilated".
        channels: of the map to be filtered.
        stride: pixels of that map between kept positions; 1 at "dilated" sites.
        host: the module that gets the filter.
        mixin: how `host` is converted.
        dense: modules whose stride becomes 1; where None, the one called `name`.
        dtype, device: of the map to be filtered, where a forward pass showed it.
        norm: the norm with running statistics that reads what the filter, at a convolution, gives.
    """

    name: str
    kind: str
    channels: int
    stride: int
    host: str
    mixin: type[Filtered]
    dense: tuple[str, ...] | None = None
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    norm: str | None = None

    @property
    def lowered(self) -> tuple[str, ...]:
        """Names of the modules whose stride becomes 1."""
        return (self.name,) if self.dense is None else self.dense

    @property
    def place(self) -> str:
        """Where the filter sits, in words."""
        side = "before" if self.mixin is FilterBefore else "after"
        return f"{side} {'it' if self.host == self.name else self.host}"


@dataclass(frozen=True)
class Skipped:
    """A place that lowers resolution, or blurs, and is left alone, with the reason."""

    name: str
    kind: str
    reason: str
