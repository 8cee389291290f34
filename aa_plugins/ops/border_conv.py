"""A convolution that pads by ⌊k/2⌋ with any border, without a padded copy of a large image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F

from aa_plugins.ops.geometry import is_large, memory_format_of, out_size, pad2d, source_index

# Of `_convolve_zero_padded`: values copied at a time; below so many channels sums cost more.
LARGEST_COPY = 2**20
FEWEST_CHANNELS = 256


def border_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    groups: int = 1,
) -> torch.Tensor:
    """`conv2d` of `pad2d(x)`: (N, C, H, W) → (N, C', ⌈H/stride⌉, ⌈W/stride⌉).

    Args:
        weight: (C', C / groups, k, k), k odd.
    """
    if _is_apart_faster(x, weight):
        if not torch.is_grad_enabled():
            return _convolve(x, weight, bias, stride, pad_mode)
        if _gradient_is_slow(x, weight, bias):
            return _BorderConv.apply(x, weight, stride, pad_mode)
    return F.conv2d(pad2d(x, weight.shape[-1], pad_mode), weight, bias, stride, groups=groups)


def _is_apart_faster(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # the strips of one size would be recorded
        and is_large(x)
        and min(x.shape[-2:]) >= weight.shape[-1]
        and x.shape[1] == weight.shape[1]  # no groups
        and x.dtype == weight.dtype
        and not torch.is_autocast_enabled("cpu")
    )


def _gradient_is_slow(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    # On CPUs, PyTorch takes most of the time of a strided convolution's gradient (channels first)
    # to transpose it element by element.
    return (
        x.dtype == torch.float32
        and bias is None
        and x.requires_grad
        and memory_format_of(x) == torch.contiguous_format
    )


def _convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int,
    pad_mode: str,
) -> torch.Tensor:
    y = _convolve_zero_padded(x, weight, bias, stride)
    for strip in _strips(x.shape, weight.shape[-1], stride, pad_mode):
        kept = y[strip.kept]
        kept += (strip.matrix(weight) @ strip.unfold(x)).view(kept.shape)
    return y


def _convolve_zero_padded(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int
) -> torch.Tensor:
    """`F.conv2d`; deep images in parts of their channels, whose reordered copies fit one memory.

    oneDNN copies what it convolves, and a copy of several MiB costs fresh pages in many a call.
    """
    padding = weight.shape[-1] // 2
    channels = max(FEWEST_CHANNELS, LARGEST_COPY // x[0, 0].numel())
    parts_are_views = memory_format_of(x) == torch.contiguous_format
    if channels >= x.shape[1] or not parts_are_views or x.dtype.itemsize < 4:
        return F.conv2d(x, weight, bias, stride, padding)
    images = []
    for image in x.split(1):
        first, *others = zip(image.split(channels, 1), weight.split(channels, 1))
        y = F.conv2d(*first, bias, stride, padding)
        for part, part_weight in others:
            y += F.conv2d(part, part_weight, None, stride, padding)
        images.append(y)
    return torch.cat(images)


@dataclass(frozen=True)
class Strip:
    """What a row or column of outputs reads outside of the image, where zeros were assumed."""

    kept: tuple[slice, ...]  # of the output
    taps: tuple[slice, ...]  # of the weight
    rows: tuple[int, ...]  # of the image
    columns: tuple[int, ...]
    padding: tuple[int, int]
    stride: int

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """(C', C · taps)."""
        return weight[self.taps].flatten(1)

    def unfold(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C · taps, positions)."""
        # The shorter index first: the copy in between is then a strip already.
        (first, a), (second, b) = self._axes(x)
        return F.unfold(x.index_select(first, a).index_select(second, b), **self._windows())

    def fold(self, x: torch.Tensor, grad: torch.Tensor) -> None:
        """Add the gradient of `unfold(x)`, `grad`, to that of x."""
        size = (len(self.rows), len(self.columns))
        strip = F.fold(grad, size, **self._windows())
        (first, a), (second, b) = self._axes(x)
        size = [*strip.shape]
        size[second] = x.shape[second]
        x.index_add_(first, a, strip.new_zeros(size).index_add_(second, b, strip))

    def _axes(self, x: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        axes = sorted([(2, self.rows), (3, self.columns)], key=lambda axis: len(axis[1]))
        return [(axis, torch.tensor(index, device=x.device)) for axis, index in axes]

    def _windows(self) -> dict[str, Any]:
        size = tuple(taps.stop - taps.start for taps in self.taps[2:])
        return {"kernel_size": size, "padding": self.padding, "stride": self.stride}


def _strips(shape: torch.Size, kernel_size: int, stride: int, pad_mode: str) -> Iterator[Strip]:
    """Rows with their corners, then columns without; of an image not smaller than the kernel."""
    if pad_mode == "zeros":
        return
    before, every, each = kernel_size // 2, slice(None), slice(0, kernel_size)
    height, width = shape[-2:]
    rows, columns = (source_index(size, kernel_size, pad_mode) for size in (height, width))
    for i, taps in _outside(height, kernel_size, stride):
        read = rows[i * stride + taps.start : i * stride + taps.stop]
        kept, window = (every, every, slice(i, i + 1)), (every, every, taps, each)
        yield Strip(kept, window, read, columns, (0, 0), stride)
    inner = rows[before : before + height]
    for i, taps in _outside(width, kernel_size, stride):
        read = columns[i * stride + taps.start : i * stride + taps.stop]
        kept, window = (every, every, every, slice(i, i + 1)), (every, every, each, taps)
        yield Strip(kept, window, inner, read, (before, 0), stride)


def _outside(size: int, kernel_size: int, stride: int) -> Iterator[tuple[int, slice]]:
    """Positions kept of an axis whose windows leave it, with the taps that do."""
    before, kept = kernel_size // 2, out_size(size, stride)
    for i in range(-(-before // stride)):
        yield i, slice(0, before - i * stride)
    for i in range((size - 1 - before) // stride + 1, kept):
        yield i, slice(before + size - i * stride, kernel_size)


class _BorderConv(torch.autograd.Function):
    """Takes the gradient of the input channels-last and transposes it by blocks."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, pad_mode: str
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.pad_mode = stride, pad_mode
        return _convolve(x, weight, None, stride, pad_mode)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        last, wanted = {"memory_format": torch.channels_last}, ctx.needs_input_grad[:2]
        padding = (weight.shape[-1] // 2,) * 2
        grad_x, grad_weight = None, None
        if wanted[1]:
            settings = (ctx.stride, padding, (False, True))
            grad_weight = _convolution_backward(grad, x, weight, *settings)[1]
        if wanted[0]:
            grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
            middle = (x.shape[1] + 1) // 2
            # Half of one image at a time, whose memory is reused meanwhile.
            for n, part in product(range(len(x)), (slice(middle), slice(middle, None))):
                unread = torch.empty_like(x[n : n + 1, part], **last)
                tensors = (grad[n : n + 1].contiguous(**last), unread, weight[:, part])
                settings = (ctx.stride, padding, (True, False))
                transposed = _convolution_backward(*tensors, *settings)[0]
                # Matrices are transposed by blocks, tensors of more axes are not.
                pixels = transposed[0].permute(1, 2, 0).flatten(0, 1)
                grad_x[n, part].view(pixels.shape[::-1]).copy_(pixels.t())
        for strip in _strips(x.shape, weight.shape[-1], ctx.stride, ctx.pad_mode):
            border = grad[strip.kept].flatten(2)
            if grad_x is not None:
                strip.fold(grad_x, strip.matrix(weight).t() @ border)
            if grad_weight is not None:
                found = (border @ strip.unfold(x).transpose(1, 2)).sum(0)
                grad_weight[strip.taps] += found.view_as(weight[strip.taps])
        return grad_x, grad_weight, None, None


def _convolution_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: int,
    padding: tuple[int, int],
    wanted: tuple[bool, bool],
) -> tuple[torch.Tensor | None, ...]:
    settings = ([stride, stride], padding, [1, 1], False, [0, 0], 1, (*wanted, False))
    return torch.ops.aten.convolution_backward(grad, x, weight, None, *settings)
