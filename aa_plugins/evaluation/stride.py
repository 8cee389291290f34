"""The total stride of a network, measured: how far an image moves until all phases repeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

Shape = tuple[int, ...]


def total_stride(
    network: nn.Module,
    run: Callable[[torch.Tensor], Any] | None = None,
    size: int = 128,
    channels: int = 3,
) -> int:
    """S, the largest stride in pixels of the network's input among the maps its output depends on.

    The network runs on inputs of size × size and twice that. A map of stride s grows by size / s
    along both axes, and the token sequence of one by its square; what doesn't grow (a global or
    adaptive pool) has no stride. Maps that nothing reads, as of auxiliary heads or of unused
    levels of a pyramid, don't count: no gradient of the output reaches them.

    Args:
        network: runs in eval mode, and comes back in the mode it was in.
        run: from an input (1, channels, size, size) to the output, of any nesting; the network
            itself by default. A part of it (a detector's backbone) may stand for the whole.
        size: a multiple of every stride that the network may have, in pixels.
        channels: of the input.

    Raises:
        ValueError: where no map of the network grows with its input as a strided map does.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        small, large = (
            _shapes(network, run or network, torch.zeros(1, channels, n, n).to(like), n == size)
            for n in (size, 2 * size)
        )
    finally:
        for module, mode in modes.items():
            module.training = mode
    strides = [
        stride
        for calls, grown in zip(small, large)
        for before, after in zip(calls, grown)
        if before is not None and (stride := _stride(before, after, size))
    ]
    if not strides:
        raise ValueError(
            f"no map of {type(network).__name__} grows with its input, so its total stride can't "
            "be measured: state it as the protocol's stride"
        )
    return max(strides)


def stride_at(network: nn.Module, image: torch.Tensor) -> int:
    """S of a network whose input has one size only: the most times that the image is as high and as
    wide as one of the maps its output depends on, where that is a whole number. Pooled to a fixed
    size a map counts, too: at one size it can't be told from a strided one.

    Args:
        network: in eval mode.
        image: (N, C, H, W), as it takes it.

    Raises:
        ValueError: where there is no such map.
    """
    height, width = image.shape[-2:]
    sides = {
        pair
        for calls in _shapes(network, network, image, True)
        for shape in calls
        if shape is not None and len(shape) == 4
        for pair in (shape[2:], shape[1:3])  # channels first, or last as in Swin
    }
    alike = [(h, w) for h, w in sides if min(h, w) > 1 and height * w == width * h]
    strides = [height // h for h, _ in alike if height % h == 0]
    if not strides:
        raise ValueError(
            f"no map of {type(network).__name__} is a whole number of times smaller than its input "
            f"of {height}×{width}: state its total stride as the protocol's"
        )
    return max(strides)


def _shapes(
    network: nn.Module, run: Callable[[torch.Tensor], Any], image: torch.Tensor, read: bool
) -> list[list[Shape | None]]:
    """Shapes of what each call of a module puts out; where `read`, None for what nothing reads."""
    shapes: list[list[Shape | None]] = []
    kept: list[tuple[int, int, torch.Tensor]] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        if read:
            kept.extend((len(shapes), index, tensor) for index, tensor in enumerate(tensors))
        shapes.append([tuple(tensor.shape) for tensor in tensors])

    handles = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with torch.set_grad_enabled(read):
            output = run(image.requires_grad_(read))
    finally:
        for handle in handles:
            handle.remove()
    if read:
        results = [leaf.sum() for leaf in tree_leaves(output) if getattr(leaf, "grad_fn", None)]
        tensors = [tensor for *_, tensor in kept]
        traced = [tensor for tensor in tensors if tensor.requires_grad]
        gradients = torch.autograd.grad(sum(results), traced, allow_unused=True) if results else ()
        reached = {id(tensor) for tensor, grad in zip(traced, gradients) if grad is not None}
        for call, index, tensor in kept:
            if id(tensor) not in reached:
                shapes[call][index] = None
    return shapes


def _stride(before: Shape, after: Shape | None, size: int) -> int | None:
    """The stride of a map from its shapes at the two sizes of the input, None for other tensors."""
    if after is None or len(before) != len(after) or before[0] != after[0]:
        return None
    grown = [(a, b) for a, b in zip(before, after) if a != b]
    if len(grown) == 1 and len(before) == 3:  # tokens (N, L, C)
        a, b = grown[0]
        grown = [(math.isqrt(a), math.isqrt(b))] * 2
        if [side * side for side in grown[0]] != [a, b]:
            return None
    if len(grown) != 2:
        return None
    strides = [size / (b - a) for a, b in grown]
    if min(strides) < 1 or any(stride != int(stride) for stride in strides):
        return None
    return int(max(strides))
