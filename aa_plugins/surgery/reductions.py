"""Reductions that no rule converts: each is named, with the reason."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from torch import nn
from torch.utils._pytree import tree_leaves

from aa_plugins.surgery.attention import Attentions
from aa_plugins.surgery.generic import KINDS, NO_OVERLAP, kind_of
from aa_plugins.surgery.rows import MERGINGS, Names, Skipped
from aa_plugins.surgery.trace import Operation, Shape, Trace

STRIDED = tuple(cls for cls, _ in KINDS)
# Functions that lower the resolution by a stride, and which of their arguments that is.
STRIDE_AT = (
    (re.compile(r"conv[123]d"), 3, 1),
    (re.compile(r"(max|avg)_pool[123]d(_with_indices)?"), 2, "kernel_size"),
    (re.compile(r"lp_pool[123]d"), 3, "kernel_size"),
    (re.compile(r"unfold"), 4, 1),
)
# Functions that are told, or draw, the size of what they compute.
RESIZING = re.compile(
    r"adaptive_(max|avg)_pool[123]d(_with_indices)?|fractional_max_pool[23]d(_with_indices)?|"
    r"interpolate|upsample|grid_sample|pixel_unshuffle"
)
RESHAPING = ("view", "reshape")
MOVING = (*RESHAPING, "permute", "transpose", "swapaxes", "movedim", "einsum", "flatten")
MOVING += ("contiguous", "clone")
OTHER_DIMENSIONS = re.compile(r".*[13]d(_with_indices)?")


def function_reductions(names: Names, trace: Trace) -> Iterator[Skipped]:
    """Reductions that a forward pass computes by a function call: no module carries the stride."""
    modules = {name: module for module, name in names.items()}
    attentions = Attentions(names, trace)
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for operation, text in _reducing_operations(trace):
        name = operation.scope[-1].name if operation.scope else ""
        if kind_of(modules[name]) is not None or _is_merging(operation, modules):
            continue
        kind = "function"
        attention = attentions.served_by(operation.outputs, operation.scope)
        if attention is not None:
            text = f"inside {attention}: reduces queries, keys or values by {text}"
        elif text.startswith("space-to-depth") and _is_image(operation.input_shapes[0], trace):
            kind, text = "stem", NO_OVERLAP
        elif type(modules[name]).__module__.startswith("torch.nn"):
            dimensions = OTHER_DIMENSIONS.fullmatch(operation.function)
            text += ": only maps of two dimensions" if dimensions else ": no rule"
            text += " are filtered" if dimensions else " converts it"
        else:
            text += f" called in the forward of {type(modules[name]).__name__}"
        if text not in found[name, kind]:
            found[name, kind].append(text)
    for (name, kind), texts in found.items():
        yield Skipped(name, kind, "; ".join(texts))


def unexplained(names: Names, trace: Trace, rows: Iterable[str]) -> Iterator[Skipped]:
    """Innermost modules that at least halve a map, though nothing in them is known to.

    Args:
        rows: names of all that is known to reduce.
    """
    known = set(rows)
    for module, name in reversed(names.items()):
        inside = f"{name}." if name else ""
        calls = trace.calls.get(name)
        if not calls or any(row == name or row.startswith(inside) for row in known):
            continue
        if isinstance(
            module, STRIDED
        ):  # without a stride: it trims a border, however small the map
            continue
        before, after = (shapes[:1] for shapes in (calls[0].input_shapes, calls[0].output_shapes))
        if before and after and _halves(before[0], after[0]):
            known.add(name)
            yield Skipped(name, "function", f"{_sizes(before[0], after[0])} in a way of its own")


def _reducing_operations(trace: Trace) -> Iterator[tuple[Operation, str]]:
    """Each operation that keeps fewer positions than it reads, but more than one, in words."""
    for operation in trace.operations:
        if not operation.input_shapes:
            continue
        before, after = operation.input_shapes[0], operation.output_shapes[0]
        if operation.function == "__getitem__":  # x[:, ::2, ::2]
            slices = [s for s in tree_leaves(operation.arguments) if isinstance(s, slice)]
            if sum((s.step or 1) > 1 for s in slices) > 1:
                yield operation, f"slicing with steps {_sizes(before, after)}"
        elif operation.function in RESHAPING:
            window = _becomes_channels(operation, trace)
            if window:
                yield operation, f"space-to-depth: {window} pixels become channels"
        elif _reduces(operation):
            yield operation, f"{operation.function} {_sizes(before, after)}"


def _reduces(operation: Operation) -> bool:
    before, after = operation.input_shapes[0], operation.output_shapes[0]
    if RESIZING.fullmatch(operation.function):
        return 1 < math.prod(after[2:]) < math.prod(before[2:])
    for functions, position, default in STRIDE_AT:
        if functions.fullmatch(operation.function):
            steps = _windows(operation) if len(after) > len(before) else None
            steps = steps or _argument(operation, "stride", position, default)
            return max(_numbers(steps)) > 1 and math.prod(after[2:]) > 1
    return False


def _windows(operation: Operation) -> object:
    """The step of `Tensor.unfold(axis, size, step)`, which shares its name with F.unfold."""
    return _argument(operation, "step", 3, 1) if operation.function == "unfold" else None


def _argument(operation: Operation, name: str, position: int, default: object) -> object:
    """What a function got by name or position; a missing stride of a pool is its kernel size."""
    positional, named = operation.arguments
    value = named.get(name, positional[position] if len(positional) > position else None)
    if not _numbers(value) and isinstance(default, str):
        return _argument(operation, default, position - 1, 1)
    return value if _numbers(value) else default


def _numbers(value: object) -> list[int]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, int)]


def _becomes_channels(operation: Operation, trace: Trace) -> str | None:
    """The window, as "2×2", where a reshape is the start of a space-to-depth; else None."""
    before, after = operation.input_shapes[0], operation.output_shapes[0]
    if len(before) != 4 or len(after) != 6:
        return None
    for axis in (1, 2):  # of H in (N, H, W, C) and in (N, C, H, W)
        rows, height, columns, width = after[axis : axis + 4]
        split = (*before[:axis], rows * height, columns * width, *before[axis + 2 :])
        rest = (*after[:axis], rows * height, columns * width, *after[axis + 4 :])
        if split != before or rest != before or height * width == 1:
            continue
        channels = height * width * before[3 if axis == 1 else 1]
        if any(_has_channels(shape, channels, before) for shape in _moved(operation, trace)):
            return f"{height}×{width}"
    return None


def _has_channels(shape: Shape, channels: int, before: Shape) -> bool:
    whole = shape[0] == before[0] and math.prod(shape) == math.prod(before)
    return whole and len(shape) in (3, 4) and channels in (shape[1], shape[-1])


def _moved(operation: Operation, trace: Trace) -> Iterator[Shape]:
    """Shapes that values take on their way through reshapes and transpositions."""
    queue = list(operation.outputs)
    while queue:
        for reader in trace.readers.get(queue.pop(), ()):
            if reader.function in MOVING:
                yield reader.output_shapes[0]
                queue.extend(reader.outputs)


def _is_image(shape: Shape, trace: Trace) -> bool:
    images = trace.calls[""][0].input_shapes
    return bool(images) and math.prod(images[0]) == math.prod(shape)


def _is_merging(operation: Operation, modules: dict[str, nn.Module]) -> bool:
    """Whether an operation is part of a merging, which has a row of its own."""
    classes = (type(modules[call.name]).__name__ for call in operation.scope)
    return any(MERGINGS.fullmatch(name) for name in classes)


def _halves(before: Shape, after: Shape) -> bool:
    """Whether both axes of a map, or the tokens of a sequence, are at least halved."""
    if len(before) != len(after) or not 3 <= len(before) <= 5 or before[0] != after[0]:
        return False
    axes = range(1, 2) if len(before) == 3 else range(1, len(before))
    halved = [axis for axis in axes if 1 < after[axis] <= (before[axis] + 1) // 2]
    return len(halved) >= (1 if len(before) == 3 else 2)


def _sizes(before: Shape, after: Shape) -> str:
    """ "56×56 → 28×28": the axes along which a map shrinks."""
    if len(before) != len(after):
        return f"{'×'.join(map(str, before[2:]))} → {after[-1]} windows"
    axes = [axis for axis in range(1, len(before)) if after[axis] < before[axis]]
    return " → ".join("×".join(str(shape[axis]) for axis in axes) for shape in (before, after))
