"""The definition of the spatially varying filter, in plain torch with float32 accumulation."""

from __future__ import annotations

from typing import NamedTuple

import torch

from aa_plugins.ops.geometry import kernel_size_of, pad2d


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
    groups, area, height, width = taps.shape[1:]
    kernel_size = kernel_size_of(area)
    accumulator = torch.promote_types(padded.dtype, torch.float32)
    padded = padded.unflatten(1, (groups, padded.shape[1] // groups))
    total = None
    for tap in range(area):
        top, left = divmod(tap, kernel_size)
        rows = slice(top, top + (height - 1) * stride + 1, stride)
        columns = slice(left, left + (width - 1) * stride + 1, stride)
        weighted = padded[..., rows, columns].to(accumulator) * taps[:, :, tap].unsqueeze(2)
        total = weighted if total is None else total + weighted
    return total.flatten(1, 2).to(padded.dtype)


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
        taps = (bank.to(taps.dtype).t() @ taps.flatten(3)).unflatten(3, taps.shape[3:])
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
