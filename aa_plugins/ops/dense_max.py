"""The maximum over every window: a max-pool at stride 1, whose filter subsamples behind it."""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F

from aa_plugins.ops.geometry import is_exported

Pair = tuple[int, int]


def dense_max2d(x: torch.Tensor, kernel: Pair, padding: Pair, dilation: Pair) -> torch.Tensor:
    """`max_pool2d` at stride 1: (N, C, H, W) → (N, C, H', W').

    For inference on a CPU the maximum is taken along one axis after the other, by a vectorized
    maximum of shifted maps: there torch's own kernel visits windows one by one, a tenth of a
    ResNet-101's whole time.
    """
    if not _is_plain_inference(x):
        return F.max_pool2d(x, kernel, 1, padding, dilation)
    if any(padding):
        (top, left) = padding
        x = F.pad(x, (left, left, top, top), value=-torch.inf)
    for axis in (2, 3):
        reach = dilation[axis - 2] * (kernel[axis - 2] - 1)
        size = x.shape[axis] - reach
        starts = range(0, reach + 1, dilation[axis - 2])
        x = reduce(torch.maximum, [x.narrow(axis, start, size) for start in starts])
    return x


def _is_plain_inference(x: torch.Tensor) -> bool:
    """Whether values alone are wanted: no gradient, of which ties would get shares, no graph."""
    return (
        x.device.type == "cpu"
        and x.is_floating_point()
        and not (torch.is_grad_enabled() and x.requires_grad)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not is_exported()
    )
