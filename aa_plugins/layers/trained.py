"""A filter that training changes, and the image doesn't: one kernel for each channel group."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.config import (
    FIXED_INITS,
    PAD_MODES,
    AAConfig,
    check_choice,
    check_kernel_size,
    check_positive_int,
)
from aa_plugins.layers.learned import LearnedFilter, largest_divisor
from aa_plugins.ops import binomial_taps
from aa_plugins.ops.geometry import out_size, pad2d


class TrainedBlurPool2d(LearnedFilter):
    """A depthwise filter that starts as the binomial, and subsampling.

    (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉). Its taps are free: nothing keeps them low-pass,
    and trained on a task they drift away from it (Zhang, ICML 2019; Zou et al., BMVC 2020, section
    4); `aa_plugins.diagnostics.filters` measures how far. What is trained is their departure from
    the start, the prior, so that weight decay draws them to that and not to zero.

    Args:
        channels: C of the input, divisible by `groups`.
        stride: pixels of the input between kept positions.
        groups: channel groups with a kernel of their own: 1 for one kernel, C for one a channel.
        init: "binomial" or "identity".
        kernel_size, pad_mode: fields of `aa_plugins.AAConfig`, which explains them.

    Raises:
        ValueError: for groups that do not divide channels, or an unknown value.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        groups: int = 8,
        init: str = "binomial",
        pad_mode: str = "reflect",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("stride", stride), ("groups", groups)):
            check_positive_int(name, value)
        check_kernel_size(kernel_size, odd=False)
        check_choice("init", init, FIXED_INITS)
        check_choice("pad_mode", pad_mode, PAD_MODES)
        if channels % groups:
            raise ValueError(f"groups={groups} does not divide channels={channels}: choose another")
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.init = init
        self.pad_mode = pad_mode
        shape = (groups, kernel_size, kernel_size)
        factory = {"device": device, "dtype": dtype}
        self.change = nn.Parameter(torch.empty(shape, **factory))
        self.register_buffer("prior", torch.empty(shape[1:], **factory))
        self.reset_parameters()

    @classmethod
    def of_config(
        cls, config: AAConfig, channels: int, norm: str = "batch", **shared: Any
    ) -> TrainedBlurPool2d:
        """The filter that a configuration describes; it needs no norm."""
        groups = largest_divisor(channels, config.groups)
        return cls(channels, config.kernel_size, groups=groups, init=config.init, **shared)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start as `init` says."""
        self.change.zero_()
        if self.init == "identity":
            before = (self.kernel_size - 1) // 2
            self.prior.zero_()[before, before] = 1.0
        else:
            line = binomial_taps(self.kernel_size)
            self.prior.copy_(line[:, None] * line)

    @property
    def taps(self) -> torch.Tensor:
        """(G, k, k): the kernel of every group."""
        return self.prior + self.change

    def kernels(self) -> torch.Tensor:
        """(C, k, k): the kernel of every channel."""
        return self.taps.repeat_interleave(self.channels // self.groups, 0)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Taps at kept positions: (N, C, H, W) → (N, G, k², ⌈H/stride⌉, ⌈W/stride⌉), float32."""
        size = (out_size(x.shape[-2], self.stride), out_size(x.shape[-1], self.stride))
        return self.taps.float().view(1, self.groups, -1, 1, 1).expand(len(x), -1, -1, *size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        padded = pad2d(x, self.kernel_size, self.pad_mode)
        weight = self.kernels().to(x.dtype)[:, None]
        return F.conv2d(padded, weight, stride=self.stride, groups=self.channels)

    def extra_repr(self) -> str:
        return (
            f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"groups={self.groups}, init={self.init!r}, pad_mode={self.pad_mode!r}"
        )
