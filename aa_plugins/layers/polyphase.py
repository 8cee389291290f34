"""Subsampling on the grid that the map itself chooses (adaptive polyphase sampling)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aa_plugins.config import PAD_MODES, AAConfig, check_choice, check_positive_int
from aa_plugins.layers.blur_pool import BlurPool2d

# One node for torch.fx, which can't follow choices made by shape.
torch.fx.wrap("largest_phase")


class AdaptivePolyphasePool2d(nn.Module):
    """The binomial filter, then of the stride² grids of positions the one of largest norm.

    (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉). Written from Chaman and Dokmanić, "Truly
    Shift-Invariant Convolutional Neural Networks", CVPR 2021, section 3: whichever way the image
    moves, the same pixels are kept, so that a network of circular convolutions and global pooling
    answers the same for every circular shift, if the strides divide the sizes. Every image chooses
    for itself, and all of its channels alike; the norm is ℓ2. It has neither parameters nor
    buffers. Positions of its map are no longer those of the image by a fixed grid: it is meant for
    classification.

    Args:
        channels: C of the input; kept for the hosts' signature.
        kernel_size: taps of the filter, 1 to 7; 1 for none.
        stride: pixels of the input between kept positions.
        pad_mode: border of the filter; only "circular" keeps the property.

    Raises:
        ValueError: for a kernel size, stride or padding that does not exist.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        pad_mode: str = "reflect",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive_int("channels", channels)
        check_positive_int("stride", stride)
        check_choice("pad_mode", pad_mode, PAD_MODES)
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.pad_mode = pad_mode
        plain = kernel_size == 1
        self.blur = (
            nn.Identity() if plain else BlurPool2d(channels, kernel_size, 1, pad_mode=pad_mode)
        )

    @classmethod
    def of_config(
        cls, config: AAConfig, channels: int, norm: str = "batch", **shared: Any
    ) -> AdaptivePolyphasePool2d:
        """The filter that a configuration describes; it needs no norm."""
        return cls(channels, config.kernel_size, **shared)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return largest_phase(self.blur(x), self.stride)

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"pad_mode={self.pad_mode!r}"
        )


def largest_phase(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉): of each image the grid of largest ℓ2 norm.

    Where the stride doesn't divide a size, a grid that starts further in goes on around the border,
    so that all are of one size.
    """
    n, channels, height, width = x.shape
    border = (-height % stride, -width % stride)
    if any(border):
        x = torch.cat([x, x[..., : border[0], :]], 2) if border[0] else x
        x = torch.cat([x, x[..., : border[1]]], 3) if border[1] else x
    grids = x.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))
    grids = grids.permute(0, 3, 5, 1, 2, 4).flatten(1, 2)  # (N, stride², C, H', W')
    norms = grids.detach().double().square().sum((2, 3, 4))
    return grids[torch.arange(n, device=x.device), norms.argmax(1)]
