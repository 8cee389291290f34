"""Sizes, memory layout and borders: a padded copy, or index tables for paths that need none."""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import torch
import torch.nn.functional as F

LARGE = 2**18  # values of one image


def is_large(x: torch.Tensor) -> bool:
    """Whether a CPU's time for copies of each image of `x` counts: they leave its caches."""
    return x.device.type == "cpu" and x[:1].numel() >= LARGE


def is_exported() -> bool:
    """Whether an exporter is at work: its program runs where our operator isn't registered."""
    is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # since torch 2.7
    return is_exporting() or torch.onnx.is_in_onnx_export()


def out_size(size: int, stride: int) -> int:
    """Positions kept of `size` at `stride`: ⌈size / stride⌉.

    Written as a convolution's output size is, so that exporters with dynamic sizes see that the
    two agree.
    """
    return (size - 1) // stride + 1


def kernel_size_of(area: int) -> int:
    """k of a window of k² taps; an int also where a tracer makes tensors of sizes."""
    return isqrt(int(area))


def memory_format_of(x: torch.Tensor) -> torch.memory_format:
    """channels_last where `x` is laid out so and in no other way, else contiguous."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def split_channels(x: torch.Tensor, groups: int) -> torch.Tensor:
    """(N, G · L, H, W) → (N, G, L, H, W).

    Unlike `unflatten`, which TorchScript's exporter writes with the sizes of its example.
    """
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, x.shape[2], x.shape[3])


def laid_out_as(like: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`x` with the strides of `like`, copied where they differ."""
    if x.stride() == like.stride():
        return x
    return torch.empty_strided(x.shape, like.stride(), dtype=x.dtype, device=x.device).copy_(x)


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
    if pad_mode == "circular" and min(x.shape[-2:]) < after:  # F.pad goes around only once
        for axis in (2, 3):
            index = source_index(x.shape[axis], kernel_size, pad_mode)
            x = x.index_select(axis, torch.tensor(index, device=x.device))
        return x
    return F.pad(x, (before, after, before, after), mode=pad_mode)


@lru_cache(maxsize=256)
def source_index(size: int, kernel_size: int, pad_mode: str) -> tuple[int, ...]:
    """Where each of the size + k − 1 rows (or columns) of `pad2d` comes from, −1 being a zero."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    positions = range(-before, size + after)
    if pad_mode == "zeros":
        return tuple(i if 0 <= i < size else -1 for i in positions)
    if pad_mode == "circular":
        return tuple(i % size for i in positions)
    if pad_mode == "reflect" and size > after:
        return tuple(size - 1 - abs(size - 1 - abs(i)) for i in positions)
    return tuple(min(max(i, 0), size - 1) for i in positions)


def fold_border(grad: torch.Tensor, kernel_size: int, pad_mode: str) -> torch.Tensor:
    """The gradient of `pad2d`: (N, C, H + k − 1, W + k − 1) → (N, C, H, W).

    Overwrites the border's neighbours in `grad` and returns a view of it.
    """
    before = (kernel_size - 1) // 2
    for axis in (2, 3):
        size = grad.shape[axis] - (kernel_size - 1)
        for padded, source in enumerate(source_index(size, kernel_size, pad_mode)):
            if source >= 0 and padded != source + before:
                grad.select(axis, source + before).add_(grad.select(axis, padded))
        grad = grad.narrow(axis, before, size)
    return grad
