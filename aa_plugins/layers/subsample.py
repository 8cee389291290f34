"""In place of a filter: with it a converted module must compute what it did before."""

from __future__ import annotations

import torch
from torch import nn


class Subsample(nn.Module):
    """Keeps every stride-th position: (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return x[..., :: self.stride, :: self.stride]
