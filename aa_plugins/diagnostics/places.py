"""Where a network subsamples: its filters, and what still strides without one."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from aa_plugins.layers.kinds import filter_classes

STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
FILTERS = tuple(filter_classes().values())


class Place(NamedTuple):
    """One module that keeps every `stride`-th position of a map.

    Attributes:
        name: of the module in its network.
        module: a filter, or a convolution or pool that strides by itself.
        stride: positions of its map between kept ones, 2 or more.
    """

    name: str
    module: nn.Module
    stride: int

    @property
    def filtered(self) -> bool:
        """Whether a filter stands here."""
        return isinstance(self.module, FILTERS)

    @torch.no_grad()
    def unfiltered(self, x: torch.Tensor) -> torch.Tensor:
        """The map that is subsampled here, but for the filter, given what the module reads."""
        return x if self.filtered else dense(self.module)(x)

    @torch.no_grad()
    def filtered_map(self, x: torch.Tensor) -> torch.Tensor:
        """The map of which every `stride`-th position is kept, given what the module reads."""
        return every_phase(self.module, self.stride, x) if self.filtered else dense(self.module)(x)


def places(model: nn.Module) -> list[Place]:
    """Every module of `model` that subsamples both axes alike, in order.

    Reductions that a forward pass computes by a function call are no modules, and aren't found.
    """
    found = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{p.name}.") for p in found if p.filtered)
        if isinstance(module, FILTERS + STRIDED) and not inside:
            stride = module.stride if isinstance(module.stride, int) else tuple(module.stride)
            steps = {stride} if isinstance(stride, int) else set(stride)
            if len(steps) == 1 and max(steps) > 1:
                found.append(Place(name, module, max(steps)))
    return found


def dense(module: nn.Module) -> nn.Module:
    """The same convolution or pool at stride 1, with the very same parameters."""
    twin = copy.copy(module)
    twin._forward_hooks, twin._forward_pre_hooks = {}, {}
    twin.stride = (1, 1) if isinstance(module.stride, tuple) else 1
    return twin


def every_phase(filter_: nn.Module, stride: int, x: torch.Tensor) -> torch.Tensor:
    """What a filter computes at every position, from its outputs at each sampling phase.

    Args:
        x: (N, C, H, W). Where a phase doesn't begin at the border, the filter's own padding begins
            with it, so that up to stride − 1 positions at the top and left are padded anew.

    Returns:
        (N, C, H, W).
    """
    result = torch.empty_like(x)
    forward = type(filter_).forward  # past any hook
    for top in range(min(stride, x.shape[-2])):
        for left in range(min(stride, x.shape[-1])):
            result[..., top::stride, left::stride] = forward(filter_, x[..., top:, left:])
    return result
