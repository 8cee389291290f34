"""The definition of the spatially varying filter, in plain torch with float32 accumulation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from aa_plugins.ops.geometry import is_exported, kernel_size_of, pad2d, split_channels


class FilterInputs(NamedTuple):
    """What every implementation of the filter takes, as `adaptive_blur2d` explains it.

    x: (N, C, H, W). logits: (N, G, L, H', W') weights, or what the softmax makes weights of. gate:
    (G,) share of the taps, the rest being the unit impulse at the central tap. bank: (L, k²)
    kernels that the weights mix; without one the weights are the taps.
    """

    x: torch.Tensor
    logits: torch.Tensor
    gate: torch.Tensor | None
    bank: torch.Tensor | None
    stride: int
    pad_mode: str
    softmax: bool

    @property
    def kernel_size(self) -> int:
        """k."""
        return kernel_size_of(self.logits.shape[2] if self.bank is None else self.bank.shape[1])

    def taps(self) -> torch.Tensor:
        """(N, G, k², H', W'), at least float32."""
        return taps_from_logits(self.logits, self.softmax, self.bank, self.gate)


def apply_taps(padded: torch.Tensor, taps: torch.Tensor, stride: int) -> torch.Tensor:
    """Weighted sum of every kept position's k×k window (Zou et al., BMVC 2020, section 3).

    The sum runs over k² shifted views of the input, so nothing larger than the input is built.

    Args:
        padded: (N, C, H + k − 1, W + k − 1), the input with its border.
        taps: (N, G, k², H', W') weights at kept positions, H' = ⌈H/stride⌉; G divides C and
            channel c belongs to group c // (C / G).

    Returns:
        (N, C, H', W') in the dtype of `padded`.
    """
    groups, area = int(taps.shape[1]), taps.shape[2]
    kernel_size = kernel_size_of(area)
    accumulator = torch.promote_types(padded.dtype, torch.float32)
    total = None
    for tap in range(area):
        window = _window(padded, tap, kernel_size, stride)
        window = split_channels(window, groups).to(accumulator)
        weighted = window * taps[:, :, tap].unsqueeze(2)
        total = weighted if total is None else total + weighted
    return total.flatten(1, 2).to(padded.dtype)


def _window(padded: torch.Tensor, tap: int, kernel_size: int, stride: int) -> torch.Tensor:
    """The pixel of every kept position's window at `tap`: (N, C, H', W')."""
    top, left = divmod(tap, kernel_size)
    below, right = kernel_size - 1 - top, kernel_size - 1 - left
    shifted = padded[..., top : padded.shape[2] - below, left : padded.shape[3] - right]
    if is_exported():  # the size of a pool is written as a convolution's, that of a slice isn't
        return F.max_pool2d(shifted, 1, stride)
    return shifted[..., ::stride, ::stride]


def taps_from_logits(
    logits: torch.Tensor,
    softmax: bool,
    bank: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the filter multiplies the windows with, from what a predictor emits.

    Arguments are those of `FilterInputs`.

    Returns:
        (N, G, k², H', W'), at least float32.
    """
    taps = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softmax:
        taps = taps.softmax(2)
    if bank is not None:
        # As a product of matrices the taps come out in the order of memory, unlike from einsum.
        shape = (taps.shape[0], taps.shape[1], bank.shape[1], taps.shape[3], taps.shape[4])
        taps = (bank.to(taps.dtype).t() @ taps.flatten(3)).reshape(shape)
    if gate is None:
        return taps
    gate = gate.to(taps.dtype).view(1, -1, 1, 1, 1)
    impulse = torch.zeros(taps.shape[2], dtype=taps.dtype, device=taps.device)
    impulse[taps.shape[2] // 2] = 1
    return gate * taps + (1 - gate) * impulse.view(1, 1, -1, 1, 1)


def blur_from_logits(inputs: FilterInputs) -> torch.Tensor:
    """The whole operation, which every backend is tested against: (N, C, H', W')."""
    padded = pad2d(inputs.x, inputs.kernel_size, inputs.pad_mode)
    return apply_taps(padded, inputs.taps(), inputs.stride)
