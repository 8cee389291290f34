"""The fused filter on CUDA devices, in Triton (interpreted on the CPU with TRITON_INTERPRET=1)."""

from __future__ import annotations

import os
from functools import lru_cache

import torch
import triton
import triton.language as tl

from aa_plugins.ops.eager import Gradients, logits_backward
from aa_plugins.ops.geometry import kernel_size_of, memory_format_of, source_index
from aa_plugins.ops.reference import taps_from_logits

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
PIXELS = 64
CHANNELS = 32


def unavailable(x: torch.Tensor) -> str | None:
    """Why this backend can't run on `x`, or None."""
    if x.dtype not in DTYPES:
        return f"x is {x.dtype}"
    if x.device.type == "cuda":
        major = torch.cuda.get_device_capability(x.device)[0]
        return None if major >= 7 else f"compute capability {major} is below 7"
    if x.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return f"x is on {x.device}, not on a CUDA device"


def forward(
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
) -> torch.Tensor:
    """(N, C, H, W) and (N, G, L, H', W') → (N, C, H', W'), as `reference.blur_from_logits`."""
    n, channels = x.shape[:2]
    groups, members, height, width = logits.shape[1:]
    area = members if bank is None else bank.shape[1]
    kernel_size = kernel_size_of(area)
    shape = (n, channels, height, width)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    block = _block(channels // groups)
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(channels // groups, block), n * groups)
    with _device_of(x):
        _forward_kernel[grid](
            x,
            logits,
            logits if gate is None else gate.contiguous(),
            logits if bank is None else bank.contiguous(),
            *_sources(x, kernel_size, pad_mode),
            y,
            groups,
            channels // groups,
            height,
            width,
            *x.stride(),
            *logits.stride(),
            *y.stride(),
            KERNEL=kernel_size,
            STRIDE=stride,
            MEMBERS=members,
            SOFTMAX=softmax,
            BANK=bank is not None,
            GATE=gate is not None,
            ACCUMULATOR=_accumulator(x),
            PIXELS=PIXELS,
            CHANNELS=block,
        )
    return y


def backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    logits: torch.Tensor,
    gate: torch.Tensor | None,
    bank: torch.Tensor | None,
    stride: int,
    pad_mode: str,
    softmax: bool,
    wanted: tuple[bool, bool],
) -> Gradients:
    """Gradients of x, logits and gate; `wanted` says whether x's, and whether the others'."""
    taps = taps_from_logits(logits, softmax, bank, gate).contiguous()
    grad_x, grad_taps = None, None
    if wanted[0]:
        grad_x = torch.empty_like(x, memory_format=memory_format_of(x))
        _input_backward(grad, taps, grad_x, stride, pad_mode)
    if wanted[1]:
        grad_taps = torch.empty_like(taps)
        _taps_backward(grad, x, grad_taps, stride, pad_mode)
    return grad_x, *logits_backward(grad_taps, logits, gate, bank, softmax)


def _taps_backward(
    grad: torch.Tensor, x: torch.Tensor, grad_taps: torch.Tensor, stride: int, pad_mode: str
) -> None:
    n, groups, area, height, width = grad_taps.shape
    per_group = x.shape[1] // groups
    kernel_size = kernel_size_of(area)
    with _device_of(x):
        _taps_backward_kernel[(triton.cdiv(height * width, PIXELS), n * groups)](
            grad,
            x,
            *_sources(x, kernel_size, pad_mode),
            grad_taps,
            groups,
            per_group,
            height,
            width,
            *grad.stride(),
            *x.stride(),
            KERNEL=kernel_size,
            STRIDE=stride,
            ACCUMULATOR=_accumulator(x),
            PIXELS=PIXELS,
            CHANNELS=_block(per_group),
        )


def _input_backward(
    grad: torch.Tensor, taps: torch.Tensor, grad_x: torch.Tensor, stride: int, pad_mode: str
) -> None:
    n, groups, area, out_height, out_width = taps.shape
    channels, height, width = grad_x.shape[1:]
    per_group = channels // groups
    kernel_size = kernel_size_of(area)
    rows, columns = (_readers(s, kernel_size, pad_mode, grad_x.device) for s in (height, width))
    block = _block(per_group)
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(per_group, block), n * groups)
    with _device_of(grad_x):
        _input_backward_kernel[grid](
            grad,
            taps,
            rows,
            columns,
            grad_x,
            groups,
            per_group,
            height,
            width,
            out_height,
            out_width,
            *grad.stride(),
            *grad_x.stride(),
            KERNEL=kernel_size,
            STRIDE=stride,
            ROW_SLOTS=rows.shape[0],
            COLUMN_SLOTS=columns.shape[0],
            ACCUMULATOR=_accumulator(grad_x),
            PIXELS=PIXELS,
            CHANNELS=block,
        )


def _block(per_group: int) -> int:
    return min(CHANNELS, triton.next_power_of_2(per_group))


def _accumulator(x: torch.Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _device_of(x: torch.Tensor) -> torch.cuda.device:
    return torch.cuda.device(x.device if x.device.type == "cuda" else -1)


def _sources(x: torch.Tensor, kernel_size: int, pad_mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(_source_on(size, kernel_size, pad_mode, x.device) for size in x.shape[-2:])


@lru_cache(maxsize=256)
def _source_on(size: int, kernel_size: int, pad_mode: str, device: torch.device) -> torch.Tensor:
    return source_index(size, kernel_size, pad_mode).to(device)


@lru_cache(maxsize=256)
def _readers(size: int, kernel_size: int, pad_mode: str, device: torch.device) -> torch.Tensor:
    """The padded rows that repeat each row, (slots, size) int32, filled up with −1.

    The inverse of `source_index`: it lets the gradient be gathered, without atomic additions.
    """
    found: list[list[int]] = [[] for _ in range(size)]
    for padded, source in enumerate(source_index(size, kernel_size, pad_mode).tolist()):
        if source >= 0:
            found[source].append(padded)
    slots = max(len(rows) for rows in found)
    table = [rows + [-1] * (slots - len(rows)) for rows in found]
    return torch.tensor(table, dtype=torch.int32, device=device).t().contiguous()


@triton.jit
def _forward_kernel(
    x,
    logits,
    gate,
    bank,
    rows,
    columns,
    y,
    groups,
    per_group,
    height,
    width,
    x_n,
    x_c,
    x_h,
    x_w,
    logits_n,
    logits_g,
    logits_m,
    logits_h,
    logits_w,
    y_n,
    y_c,
    y_h,
    y_w,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    MEMBERS: tl.constexpr,
    SOFTMAX: tl.constexpr,
    BANK: tl.constexpr,
    GATE: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    n, g = (tl.program_id(2) // groups).to(tl.int64), tl.program_id(2) % groups
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)  # [PIXELS]
    inside = pixel < height * width
    h, w = (pixel // width).to(tl.int64), (pixel % width).to(tl.int64)
    local = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)  # [CHANNELS]
    channel = (g * per_group + local).to(tl.int64)
    member = logits + n * logits_n + g * logits_g + h * logits_h + w * logits_w

    # The logits are read again for each tap, from the cache, rather than kept in registers.
    largest = tl.full([PIXELS], float("-inf"), ACCUMULATOR)
    total = tl.full([PIXELS], 1.0, ACCUMULATOR)
    if SOFTMAX:
        for m in tl.static_range(MEMBERS):
            value = tl.load(member + m * logits_m, mask=inside, other=0.0).to(ACCUMULATOR)
            largest = tl.maximum(largest, value)
        total = tl.zeros([PIXELS], ACCUMULATOR)
        for m in tl.static_range(MEMBERS):
            value = tl.load(member + m * logits_m, mask=inside, other=0.0).to(ACCUMULATOR)
            total += tl.exp(value - largest)
    share = tl.full([], 1.0, ACCUMULATOR)
    if GATE:
        share = tl.load(gate + g).to(ACCUMULATOR)

    sums = tl.zeros([PIXELS, CHANNELS], ACCUMULATOR)
    plane = x + n * x_n + channel[None, :] * x_c
    valid = inside[:, None] & (local < per_group)[None, :]
    for tap in tl.static_range(KERNEL * KERNEL):
        weight = tl.zeros([PIXELS], ACCUMULATOR)
        for m in tl.static_range(MEMBERS if BANK else 1):
            index: tl.constexpr = m if BANK else tap
            value = tl.load(member + index * logits_m, mask=inside, other=0.0).to(ACCUMULATOR)
            if SOFTMAX:
                value = tl.exp(value - largest) / total
            if BANK:
                value = value * tl.load(bank + m * KERNEL * KERNEL + tap).to(ACCUMULATOR)
            weight += value
        weight = share * weight
        if tap == KERNEL * KERNEL // 2:
            weight += 1 - share
        row = tl.load(rows + h * STRIDE + tap // KERNEL, mask=inside, other=-1).to(tl.int64)
        column = tl.load(columns + w * STRIDE + tap % KERNEL, mask=inside, other=-1).to(tl.int64)
        source = plane + (row * x_h + column * x_w)[:, None]
        exists = valid & ((row >= 0) & (column >= 0))[:, None]
        sums += weight[:, None] * tl.load(source, mask=exists, other=0.0).to(ACCUMULATOR)

    target = y + n * y_n + channel[None, :] * y_c + (h * y_h + w * y_w)[:, None]
    tl.store(target, sums.to(y.dtype.element_ty), mask=valid)


@triton.jit
def _taps_backward_kernel(
    grad,
    x,
    rows,
    columns,
    grad_taps,
    groups,
    per_group,
    height,
    width,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    x_n,
    x_c,
    x_h,
    x_w,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    n, g = (tl.program_id(1) // groups).to(tl.int64), tl.program_id(1) % groups
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)  # [PIXELS]
    inside = pixel < height * width
    h, w = (pixel // width).to(tl.int64), (pixel % width).to(tl.int64)
    for tap in tl.static_range(KERNEL * KERNEL):
        row = tl.load(rows + h * STRIDE + tap // KERNEL, mask=inside, other=-1).to(tl.int64)
        column = tl.load(columns + w * STRIDE + tap % KERNEL, mask=inside, other=-1).to(tl.int64)
        exists = (row >= 0) & (column >= 0)
        total = tl.zeros([PIXELS], ACCUMULATOR)
        for first in range(0, per_group, CHANNELS):
            local = first + tl.arange(0, CHANNELS)  # [CHANNELS]
            channel = (g * per_group + local).to(tl.int64)[None, :]
            valid = exists[:, None] & (local < per_group)[None, :]
            window = x + n * x_n + channel * x_c + (row * x_h + column * x_w)[:, None]
            upstream = grad + n * grad_n + channel * grad_c + (h * grad_h + w * grad_w)[:, None]
            product = tl.load(window, mask=valid, other=0.0).to(ACCUMULATOR)
            product *= tl.load(upstream, mask=valid, other=0.0).to(ACCUMULATOR)
            total += tl.sum(product, 1)
        target = ((n * groups + g) * KERNEL * KERNEL + tap) * height * width + pixel
        tl.store(grad_taps + target, total, mask=inside)


@triton.jit
def _input_backward_kernel(
    grad,
    taps,
    rows,
    columns,
    grad_x,
    groups,
    per_group,
    height,
    width,
    out_height,
    out_width,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    x_n,
    x_c,
    x_h,
    x_w,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW_SLOTS: tl.constexpr,
    COLUMN_SLOTS: tl.constexpr,
    ACCUMULATOR: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    n, g = (tl.program_id(2) // groups).to(tl.int64), tl.program_id(2) % groups
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)  # [PIXELS]
    inside = pixel < height * width
    y, x = (pixel // width).to(tl.int64), (pixel % width).to(tl.int64)
    local = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)  # [CHANNELS]
    channel = (g * per_group + local).to(tl.int64)[None, :]
    valid = inside[:, None] & (local < per_group)[None, :]
    group_taps = taps + (n * groups + g) * KERNEL * KERNEL * out_height * out_width

    total = tl.zeros([PIXELS, CHANNELS], ACCUMULATOR)
    for row_slot in tl.static_range(ROW_SLOTS):
        row = tl.load(rows + row_slot * height + y, mask=inside, other=-1).to(tl.int64)
        for column_slot in tl.static_range(COLUMN_SLOTS):
            column = tl.load(columns + column_slot * width + x, mask=inside, other=-1).to(tl.int64)
            # Only blocks at the border find anything beyond the first slots.
            if tl.max(tl.minimum(row, column), 0) >= 0:
                for tap in tl.static_range(KERNEL * KERNEL):
                    top, left = row - tap // KERNEL, column - tap % KERNEL
                    h, w = top // STRIDE, left // STRIDE
                    reads = (top >= 0) & (left >= 0) & (row >= 0) & (column >= 0)
                    reads &= (h * STRIDE == top) & (w * STRIDE == left)
                    reads &= (h < out_height) & (w < out_width)
                    place = tap * out_height * out_width + h * out_width + w
                    weight = tl.load(group_taps + place, mask=reads, other=0.0)
                    upstream = grad + n * grad_n + channel * grad_c
                    upstream += (h * grad_h + w * grad_w)[:, None]
                    mask = reads[:, None] & valid
                    value = tl.load(upstream, mask=mask, other=0.0).to(ACCUMULATOR)
                    total += weight.to(ACCUMULATOR)[:, None] * value

    target = grad_x + n * x_n + channel * x_c + (y * x_h + x * x_w)[:, None]
    tl.store(target, total.to(grad_x.dtype.element_ty), mask=valid)
