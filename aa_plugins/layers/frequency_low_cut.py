"""The ideal low-pass: nothing passes beyond the new Nyquist limit (FLC pooling)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aa_plugins.config import AAConfig, check_positive_int

# One node for torch.fx, which can't follow sizes.
torch.fx.wrap("low_cut")


class FrequencyLowCutPool2d(nn.Module):
    """Cuts off in the Fourier domain what `stride` would alias, and subsamples.

    (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉). Written from Grabinski, Jung, Keuper and Keuper,
    "FrequencyLowCut Pooling", ECCV 2022, section 3: of the spectrum the low frequencies alone are
    kept. The transform makes its border circular. It has neither parameters nor buffers.

    Args:
        channels: C of the input; kept for the hosts' signature.
        stride: pixels of the input between kept positions.

    Raises:
        ValueError: for a number of channels or a stride that isn't positive.
    """

    pad_mode = "circular"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive_int("channels", channels)
        check_positive_int("stride", stride)
        self.channels = channels
        self.stride = stride

    @classmethod
    def of_config(
        cls, config: AAConfig, channels: int, norm: str = "batch", pad_mode: str = "", **shared: Any
    ) -> FrequencyLowCutPool2d:
        """The filter that a configuration describes; it needs neither norm nor border."""
        return cls(channels, **shared)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        return low_cut(x, self.stride)

    def extra_repr(self) -> str:
        return f"{self.channels}, stride={self.stride}"


def low_cut(x: torch.Tensor, stride: int) -> torch.Tensor:
    """The part of (N, C, H, W) below 1 / (2 · stride) cycles a pixel, at every stride-th position.

    Of a frequency at the limit itself half passes: it and its mirror image fall on one another.
    """
    height, width = x.shape[-2:]
    values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    with torch.autocast(x.device.type, enabled=False):
        spectrum = torch.fft.rfft2(values)
        rows = passes(torch.fft.fftfreq(height, device=x.device), stride)
        columns = passes(torch.fft.rfftfreq(width, device=x.device), stride)
        spectrum = spectrum * (rows[:, None] * columns).to(values.dtype)
        low = torch.fft.irfft2(spectrum, s=(height, width))
    return low[..., ::stride, ::stride].to(x.dtype).contiguous()


def passes(frequencies: torch.Tensor, stride: int) -> torch.Tensor:
    """How much of each frequency, in cycles a pixel, may pass: 1 below the limit, 0 above it."""
    if stride == 1:
        return torch.ones_like(frequencies)
    distance = frequencies.abs() * 2 * stride - 1
    at_limit = distance.abs() < 1e-6
    return torch.where(at_limit, 0.5, (distance < 0).to(frequencies.dtype))
