"""The fixed binomial filter (Zhang, "Making Convolutional Networks Shift-Invariant Again")."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aa_plugins.config import (
    PAD_MODES,
    AAConfig,
    check_choice,
    check_kernel_size,
    check_positive_int,
)
from aa_plugins.layers.constants import constant
from aa_plugins.ops import binomial_taps, blur2d

# One node for torch.fx, which can't follow choices made by shape.
torch.fx.wrap("blur2d")


class BlurPool2d(nn.Module):
    """Binomial low-pass filter and subsampling (Zhang, ICML 2019, section 3).

    Odd and even kernels share one shape rule, (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉). It has
    neither parameters nor buffers, so checkpoints neither hold nor miss anything.

    Args:
        channels: C of the input; kept for the hosts' signature, the kernel is shared.
        stride: pixels of the input between kept positions.
        kernel_size, pad_mode: fields of `aa_plugins.AAConfig`, which explains them.

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
        check_kernel_size(kernel_size, odd=False)
        check_choice("pad_mode", pad_mode, PAD_MODES)
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.pad_mode = pad_mode

    @classmethod
    def of_config(
        cls, config: AAConfig, channels: int, norm: str = "batch", **shared: Any
    ) -> BlurPool2d:
        """The filter that a configuration describes; it needs no norm."""
        return cls(channels, config.kernel_size, **shared)

    def kernel(self, like: torch.Tensor) -> torch.Tensor:
        """(k, k) taps that sum to 1, on the device and in the dtype of `like`."""
        return constant(self, "kernel", self._kernel, like)

    def _kernel(self) -> torch.Tensor:
        taps = binomial_taps(self.kernel_size)
        return taps[:, None] * taps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return blur2d(x, self.kernel(x), self.stride, self.pad_mode)

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"pad_mode={self.pad_mode!r}"
        )
