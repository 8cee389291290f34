"""The norm of a predictor in networks that were built without batch norms."""

from __future__ import annotations

import torch
from torch import nn


class ChannelNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each position, (N, C, H, W) → (N, C, H, W).

    It knows neither the other images of a batch nor other positions: a batch of one map of one
    pixel trains, and the filter still sees no further than its predictor's window.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NORMS = {"batch": nn.BatchNorm2d, "channel": ChannelNorm2d}


def norm_for(network: nn.Module) -> str:
    """Which of NORMS fits a network: the batch norm where it has any itself, frozen ones too."""
    names = (cls.__name__ for module in network.modules() for cls in type(module).__mro__)
    return "batch" if any("BatchNorm" in name for name in names) else "channel"
