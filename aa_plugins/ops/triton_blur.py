"""The fused filter on CUDA devices, in Triton (interpreted on the CPU with TRITON_INTERPRET=1)."""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

from aa_plugins.ops.eager import Gradients, logits_backward
from aa_plugins.ops.geometry import memory_format_of
from aa_plugins.ops.reference import FilterInputs

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


def forward(inputs: FilterInputs) -> torch.Tensor:
    """(N, C, H', W'), as `reference.blur_from_logits`."""
    x, logits, gate, bank = inputs[:4]
    n, channels = x.shape[:2]
    groups, members, height, width = logits.shape[1:]
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
            y,
            groups,
            channels // groups,
            height,
            width,
            *x.shape[2:],
            *x.stride(),
            *logits.stride(),
            *y.stride(),
            **_borders(x, inputs.kernel_size, inputs.pad_mode),
            KERNEL=inputs.kernel_size,
            STRIDE=inputs.stride,
            MEMBERS=members,
            SOFTMAX=inputs.softmax,
            BANK=bank is not None,
            GATE=gate is not None,
            ACCUMULATOR=_accumulator(x),
            PIXELS=PIXELS,
            CHANNELS=block,
        )
    return y


def backward(grad: torch.Tensor, inputs: FilterInputs, wanted: tuple[bool, bool]) -> Gradients:
    """Gradients of x, logits and gate; `wanted` says whether x's, and whether the others'."""
    taps = inputs.taps().contiguous()
    grad_x, grad_taps = None, None
    if wanted[0]:
        grad_x = torch.empty_like(inputs.x, memory_format=memory_format_of(inputs.x))
        _input_backward(grad, taps, grad_x, inputs)
    if wanted[1]:
        grad_taps = torch.empty_like(taps)
        _taps_backward(grad, grad_taps, inputs)
    return grad_x, *logits_backward(grad_taps, inputs)


def _taps_backward(grad: torch.Tensor, grad_taps: torch.Tensor, inputs: FilterInputs) -> None:
    x = inputs.x
    n, groups, _, height, width = grad_taps.shape
    per_group = x.shape[1] // groups
    with _device_of(x):
        _taps_backward_kernel[(triton.cdiv(height * width, PIXELS), n * groups)](
            grad,
            x,
            grad_taps,
            groups,
            per_group,
            height,
            width,
            *x.shape[2:],
            *grad.stride(),
            *x.stride(),
            **_borders(x, inputs.kernel_size, inputs.pad_mode),
            KERNEL=inputs.kernel_size,
            STRIDE=inputs.stride,
            ACCUMULATOR=_accumulator(x),
            PIXELS=PIXELS,
            CHANNELS=_block(per_group),
        )


def _input_backward(
    grad: torch.Tensor, taps: torch.Tensor, grad_x: torch.Tensor, inputs: FilterInputs
) -> None:
    n, groups, _, out_height, out_width = taps.shape
    channels, height, width = grad_x.shape[1:]
    per_group = channels // groups
    block = _block(per_group)
    grid = (triton.cdiv(height * width, PIXELS), triton.cdiv(per_group, block), n * groups)
    borders = _borders(grad_x, inputs.kernel_size, inputs.pad_mode)
    row_slots, column_slots = (
        _slots(size, inputs.kernel_size, border)
        for size, border in zip((height, width), borders.values())
    )
    with _device_of(grad_x):
        _input_backward_kernel[grid](
            grad,
            taps,
            grad_x,
            groups,
            per_group,
            height,
            width,
            out_height,
            out_width,
            *grad.stride(),
            *grad_x.stride(),
            **borders,
            KERNEL=inputs.kernel_size,
            STRIDE=inputs.stride,
            ROW_SLOTS=row_slots,
            COLUMN_SLOTS=column_slots,
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


def _borders(x: torch.Tensor, kernel_size: int, pad_mode: str) -> dict[str, str]:
    """How rows and columns are padded: an axis too short to reflect is replicated."""
    short = [pad_mode == "reflect" and size <= kernel_size // 2 for size in x.shape[2:]]
    rows, columns = ("replicate" if s else pad_mode for s in short)
    return {"ROWS": rows, "COLUMNS": columns}


def _slots(size: int, kernel_size: int, border: str) -> int:
    """How many padded positions may repeat one, as `_reader` numbers them."""
    rounds = -(-(kernel_size // 2) // size)
    border_slots = {"zeros": 0, "reflect": 2, "replicate": kernel_size - 1, "circular": 2 * rounds}
    return 1 + border_slots[border]


@triton.jit
def _source(padded, size, KERNEL: tl.constexpr, BORDER: tl.constexpr):
    """Where a padded row (or column) comes from, −1 being a zero; see `geometry.source_index`."""
    position = padded - (KERNEL - 1) // 2
    inside = (position >= 0) & (position < size)
    if BORDER == "zeros":
        source = tl.where(inside, position, -1)
    elif BORDER == "circular":
        source = ((position % size) + size) % size
    elif BORDER == "reflect":
        source = size - 1 - tl.abs(size - 1 - tl.abs(position))
    else:
        source = tl.minimum(tl.maximum(position, 0), size - 1)
    return source.to(tl.int64)


@triton.jit
def _reader(source, slot: tl.constexpr, size, KERNEL: tl.constexpr, BORDER: tl.constexpr):
    """The padded row of this number that repeats a row, −1 where there is none.

    The inverse of `_source`: it lets the gradient be gathered, without atomic additions.
    """
    before: tl.constexpr = (KERNEL - 1) // 2
    position, exists = source, source >= 0
    if slot > 0:
        if BORDER == "reflect":
            if slot == 1:
                position, exists = -source, source > 0
            else:
                position, exists = 2 * (size - 1) - source, source < size - 1
        elif BORDER == "replicate":
            if slot <= before:
                position, exists = source - slot, source == 0
            else:
                position, exists = source + (slot - before), source == size - 1
        elif slot % 2 == 1:  # circular: once around, back and forth, twice around, …
            position = source + (slot + 1) // 2 * size
        else:
            position = source - slot // 2 * size
    padded = position + before
    exists = exists & (padded >= 0) & (padded < size + KERNEL - 1)
    return tl.where(exists, padded, -1).to(tl.int64)


@triton.jit
def _forward_kernel(
    x,
    logits,
    gate,
    bank,
    y,
    groups,
    per_group,
    height,
    width,
    x_height,
    x_width,
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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
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
            place = member + (m if BANK else tap) * logits_m
            value = tl.load(place, mask=inside, other=0.0).to(ACCUMULATOR)
            if SOFTMAX:
                value = tl.exp(value - largest) / total
            if BANK:
                value = value * tl.load(bank + m * KERNEL * KERNEL + tap).to(ACCUMULATOR)
            weight += value
        weight = share * weight
        if tap == KERNEL * KERNEL // 2:
            weight += 1 - share
        row = _source(h * STRIDE + tap // KERNEL, x_height, KERNEL, ROWS)
        column = _source(w * STRIDE + tap % KERNEL, x_width, KERNEL, COLUMNS)
        source = plane + (row * x_h + column * x_w)[:, None]
        exists = valid & ((row >= 0) & (column >= 0))[:, None]
        sums += weight[:, None] * tl.load(source, mask=exists, other=0.0).to(ACCUMULATOR)

    target = y + n * y_n + channel[None, :] * y_c + (h * y_h + w * y_w)[:, None]
    tl.store(target, sums.to(y.dtype.element_ty), mask=valid)


@triton.jit
def _taps_backward_kernel(
    grad,
    x,
    grad_taps,
    groups,
    per_group,
    height,
    width,
    x_height,
    x_width,
    grad_n,
    grad_c,
    grad_h,
    grad_w,
    x_n,
    x_c,
    x_h,
    x_w,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
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
        row = _source(h * STRIDE + tap // KERNEL, x_height, KERNEL, ROWS)
        column = _source(w * STRIDE + tap % KERNEL, x_width, KERNEL, COLUMNS)
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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
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
        row = _reader(y, row_slot, height, KERNEL, ROWS)
        for column_slot in tl.static_range(COLUMN_SLOTS):
            column = _reader(x, column_slot, width, KERNEL, COLUMNS)
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
