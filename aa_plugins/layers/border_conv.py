"""The predictor's convolution: pads by its own border, so that only kept positions are computed."""

from __future__ import annotations

import torch
from torch import nn

from aa_plugins.ops.border_conv import border_conv2d

# One node for torch.fx, which can't follow choices made by shape.
torch.fx.wrap("border_conv2d")


class BorderConv2d(nn.Conv2d):
    """(N, C, H, W) → (N, C', ⌈H/stride⌉, ⌈W/stride⌉) without bias, with any of our borders.

    Args:
        pad_mode: "reflect", "replicate", "zeros" or "circular"; unlike torch's own, reflection
            falls back to replication on maps too small for it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        pad_mode: str,
        groups: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        channels = (in_channels, out_channels)
        super().__init__(*channels, kernel_size, stride, groups=groups, bias=False, **factory)
        self.pad_mode = pad_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C', ⌈H/stride⌉, ⌈W/stride⌉)."""
        stride = self.stride[0]
        return border_conv2d(x, self.weight, self.bias, stride, self.pad_mode, self.groups)
