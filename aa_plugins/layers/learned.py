"""What every filter with parameters offers to hosts, tools and measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


class LearnedFilter(nn.Module, ABC):
    """A filter of k×k taps for each of `groups` channel groups, which training changes."""

    channels: int
    kernel_size: int
    stride: int
    groups: int
    pad_mode: str

    @abstractmethod
    def reset_parameters(self) -> None:
        """Start as `init` says; idempotent, to be called after a host's own initialisation."""

    @abstractmethod
    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Taps at kept positions: (N, C, H, W) → (N, G, k², ⌈H/stride⌉, ⌈W/stride⌉), float32."""

    def init_weights(self, **_: Any) -> None:
        """Start again: timm and mmengine call this after they have initialised every norm."""
        self.reset_parameters()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LearnedFilter:
        """As torch's; built on the meta device, a filter starts when it gets its memory."""
        empty = any(p.is_meta for p in self.parameters())
        super()._apply(fn, recurse)
        if empty and not any(p.is_meta for p in self.parameters()):
            self.reset_parameters()
        return self


def filters_of(model: nn.Module) -> Iterator[tuple[str, LearnedFilter]]:
    """Every filter of `model` that has parameters, with its name."""
    for name, module in model.named_modules():
        if isinstance(module, LearnedFilter):
            yield name, module


def reset_filters(model: nn.Module) -> None:
    """Give every such filter its start again, after a host has initialised the model."""
    for _, layer in filters_of(model):
        layer.reset_parameters()


def largest_divisor(channels: int, most: int) -> int:
    """The largest divisor of `channels` that isn't above `most`."""
    return next(d for d in range(min(channels, most), 0, -1) if channels % d == 0)
