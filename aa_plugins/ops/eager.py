"""The fused filter in plain torch, for every device: sums in place instead of k² temporaries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from types import EllipsisType

import torch

from aa_plugins.ops.geometry import LARGE, fold_border, is_large, kernel_size_of, pad2d
from aa_plugins.ops.reference import FilterInputs, taps_from_logits

Gradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
Slices = tuple[slice, slice] | EllipsisType


def unavailable(x: torch.Tensor) -> str | None:
    """Why this backend can't run on `x`: it always can."""
    return None


def forward(inputs: FilterInputs) -> torch.Tensor:
    """(N, C, H', W'), as `reference.blur_from_logits`."""
    x, stride, pad_mode, kernel_size = inputs.x, inputs.stride, inputs.pad_mode, inputs.kernel_size
    taps = inputs.taps()
    accumulator = torch.promote_types(x.dtype, taps.dtype)
    # Not a view of another tensor: autograd forbids what follows to change such a one in place.
    result = torch.zeros(_out_shape(x, taps), dtype=accumulator, device=x.device)
    total = result.unflatten(1, (taps.shape[1], -1))
    for channels, groups in _parts(x, taps.shape[1]):
        phases = _phases(pad2d(x[channels], kernel_size, pad_mode), stride)
        weights, part = taps[groups], total[groups]
        for tap, window in enumerate(_windows(phases, weights, stride)):
            part.addcmul_(window, weights[:, :, tap].unsqueeze(2))
    return result.to(x.dtype)


def backward(grad: torch.Tensor, inputs: FilterInputs, wanted: tuple[bool, bool]) -> Gradients:
    """Gradients of x, logits and gate; `wanted` says whether x's, and whether the others'."""
    x, stride, pad_mode, kernel_size = inputs.x, inputs.stride, inputs.pad_mode, inputs.kernel_size
    taps = inputs.taps()
    grad = grad.to(taps.dtype).unflatten(1, (taps.shape[1], -1))
    grad_x = torch.empty_like(x) if wanted[0] else None
    grad_taps = torch.empty_like(taps) if wanted[1] else None
    for channels, groups in _parts(x, taps.shape[1]):
        padded = pad2d(x[channels], kernel_size, pad_mode)
        phases = _phases(padded, stride)
        weights, part = taps[groups], grad[groups]
        if grad_x is not None:
            grad_phases = [torch.zeros_like(phase, dtype=taps.dtype) for phase in phases]
            for tap, window in enumerate(_windows(grad_phases, weights, stride)):
                window.addcmul_(part, weights[:, :, tap].unsqueeze(2))
            grad_padded = torch.empty_like(padded, dtype=taps.dtype)
            for first, phase in enumerate(grad_phases):
                grad_padded[..., first::stride] = phase
            grad_x[channels] = fold_border(grad_padded, kernel_size, pad_mode)
        if grad_taps is not None:
            for tap, window in enumerate(_windows(phases, weights, stride)):
                torch.sum(window * part, dim=2, out=grad_taps[groups][:, :, tap])
    return grad_x, *logits_backward(grad_taps, inputs)


def logits_backward(
    grad_taps: torch.Tensor | None, inputs: FilterInputs
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of logits and gate from that of the taps, (N, G, k², H', W')."""
    if grad_taps is None:
        return None, None
    logits, gate, bank = inputs.logits, inputs.gate, inputs.bank
    weights = taps_from_logits(logits, inputs.softmax)
    grad_gate = None
    if gate is not None:
        opened = taps_from_logits(weights, False, bank)
        central = grad_taps[:, :, opened.shape[2] // 2]
        grad_gate = (grad_taps * opened).sum((0, 2, 3, 4)) - central.sum((0, 2, 3))
        grad_gate = grad_gate.to(gate.dtype)
        grad_taps = grad_taps * gate.to(grad_taps.dtype).view(1, -1, 1, 1, 1)
    grad = grad_taps
    if bank is not None:
        grad = (bank.to(grad.dtype) @ grad.flatten(3)).unflatten(3, grad.shape[3:])
    if inputs.softmax:
        grad = weights * (grad - (weights * grad).sum(2, keepdim=True))
    return grad.to(logits.dtype), grad_gate


def _parts(x: torch.Tensor, groups: int) -> Iterator[tuple[Slices, Slices]]:
    """Where the parts of the work are among the input's channels, and among groups.

    A large image goes group by group: copies stay in a cache, and reuse the memory of the last.
    """
    if not is_large(x):
        yield ..., ...
        return
    channels = x.shape[1] // groups
    step = max(1, LARGE // x[0, :channels].numel())
    for image, first in product(range(len(x)), range(0, groups, step)):
        last = min(first + step, groups)
        one = slice(image, image + 1)
        yield (one, slice(first * channels, last * channels)), (one, slice(first, last))


def _phases(padded: torch.Tensor, stride: int) -> list[torch.Tensor]:
    """Every `stride`-th column from each of the first ones: sums vectorise over neighbours only."""
    return [
        padded[..., first::stride].contiguous() for first in range(min(stride, padded.shape[-1]))
    ]


def _windows(phases: list[torch.Tensor], taps: torch.Tensor, stride: int) -> Iterator[torch.Tensor]:
    """As `reference.windows`, out of phases."""
    groups, area, height, width = taps.shape[1:]
    for tap in range(area):
        top, left = divmod(tap, kernel_size_of(area))
        phase = phases[left % stride].unflatten(1, (groups, -1))
        rows = slice(top, top + (height - 1) * stride + 1, stride)
        yield phase[..., rows, left // stride : left // stride + width]


def _out_shape(x: torch.Tensor, taps: torch.Tensor) -> tuple[int, ...]:
    return (*x.shape[:2], *taps.shape[-2:])
