"""Public filter functions: argument checks, padding, and the choice of a backend."""

from __future__ import annotations

from math import comb

import torch
import torch.nn.functional as F

from aa_plugins.ops.reference import apply_taps


def binomial_taps(kernel_size: int) -> torch.Tensor:
    """Binomial coefficients of `kernel_size` taps, (k,) float32, summing to 1."""
    coefficients = [comb(kernel_size - 1, i) for i in range(kernel_size)]
    return torch.tensor(coefficients, dtype=torch.float32) / 2 ** (kernel_size - 1)


def out_size(size: int, stride: int) -> int:
    """Positions kept of `size` at `stride`: ⌈size / stride⌉."""
    return -(-size // stride)


def pad2d(x: torch.Tensor, kernel_size: int, pad_mode: str = "reflect") -> torch.Tensor:
    """Pad (N, C, H, W) by ⌊(k−1)/2⌋ before and ⌊k/2⌋ after along both axes.

    Reflection needs more pixels than it pads, so an axis that is too short is replicated.
    """
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    if pad_mode == "zeros":
        return F.pad(x, (before, after, before, after))
    if pad_mode == "reflect" and min(x.shape[-2:]) <= after:
        height_mode, width_mode = (
            "reflect" if size > after else "replicate" for size in x.shape[-2:]
        )
        x = F.pad(x, (before, after, 0, 0), mode=width_mode)
        return F.pad(x, (0, 0, before, after), mode=height_mode)
    return F.pad(x, (before, after, before, after), mode=pad_mode)


def blur2d(x: torch.Tensor, taps: torch.Tensor, stride: int, pad_mode: str) -> torch.Tensor:
    """Filter every channel with one fixed k×k kernel and subsample.

    Args:
        x: (N, C, H, W).
        taps: (k, k), summing to 1.

    Returns:
        (N, C, ⌈H/stride⌉, ⌈W/stride⌉).
    """
    channels, kernel_size = x.shape[1], taps.shape[-1]
    weight = taps.to(x.dtype).expand(channels, 1, kernel_size, kernel_size)
    return F.conv2d(pad2d(x, kernel_size, pad_mode), weight, stride=stride, groups=channels)


def adaptive_blur2d(
    x: torch.Tensor, taps: torch.Tensor, stride: int = 2, pad_mode: str = "reflect"
) -> torch.Tensor:
    """Filter every kept position with its own taps, shared by a group of channels.

    Args:
        x: (N, C, H, W).
        taps: (N, G, k², ⌈H/stride⌉, ⌈W/stride⌉) weights in row-major order over the window; G
            divides C, channel c belongs to group c // (C / G).

    Returns:
        (N, C, ⌈H/stride⌉, ⌈W/stride⌉) in the dtype of `x`, accumulated in float32.

    Raises:
        ValueError: where the shapes do not fit.
    """
    n, channels, height, width = x.shape
    groups, area = taps.shape[1:3]
    expected = (n, groups, area, out_size(height, stride), out_size(width, stride))
    if tuple(taps.shape) != expected or channels % groups:
        raise ValueError(
            f"taps of shape {tuple(taps.shape)} do not fit x of shape {tuple(x.shape)} at "
            f"stride {stride}: expected {expected} with groups dividing {channels} channels"
        )
    return apply_taps(pad2d(x, round(area**0.5), pad_mode), taps, stride)
