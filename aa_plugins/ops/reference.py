"""The definition of the spatially varying filter, in plain torch with float32 accumulation."""

from __future__ import annotations

import torch


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
    n, channels = padded.shape[:2]
    groups, area, height, width = taps.shape[1:]
    kernel_size = round(area**0.5)
    accumulator = torch.promote_types(padded.dtype, torch.float32)
    total = None
    for tap in range(area):
        top, left = divmod(tap, kernel_size)
        rows = slice(top, top + (height - 1) * stride + 1, stride)
        columns = slice(left, left + (width - 1) * stride + 1, stride)
        window = padded[:, :, rows, columns].unflatten(1, (groups, channels // groups))
        weighted = window.to(accumulator) * taps[:, :, tap].unsqueeze(2)
        total = weighted if total is None else total + weighted
    return total.flatten(1, 2).to(padded.dtype)
