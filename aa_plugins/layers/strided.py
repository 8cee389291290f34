"""Anti-aliased versions of modules that lower resolution, with unchanged parameter names.

A module is converted in place: a mixed-in behaviour runs it densely and filters its input or its
output. Conversion only adds the filter as a child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.layers.in_place import InPlace, mix_in
from aa_plugins.ops import dense_max2d, out_size

# One node for torch.fx, which can't follow choices made by device.
torch.fx.wrap("dense_max2d")


class Filtered(InPlace):
    """Base of every converted module."""


class FilterBefore(Filtered):
    """Filters what the module reads: the place after the preceding nonlinearity."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward(self.prefilter(x), *args, **kwargs)


class FilterAfter(Filtered):
    """Runs the module at stride 1 and filters what it computed."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.postfilter(super().forward(*args, **kwargs))


class FilterAfterReLU(Filtered):
    """A convolution whose ReLU is a call of its parent, which then finds nothing left to do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.postfilter(F.relu(super().forward(x)))


class FilterAfterStemPool(Filtered):
    """Detectron2's stem: convolution, ReLU, and a max-pool that is a call, here at stride 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu_(self.conv1(x))
        return self.postfilter(dense_max2d(x, (3, 3), (1, 1), (1, 1)))


class FilterAfterMaxPool(Filtered):
    """A max-pool at stride 1, then the filter; `ceil_mode` keeps its last, partial window."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.ceil_mode:
            x = F.pad(x, _partial_windows(self, x), value=-torch.inf)
        window = _pair(self.kernel_size), _pair(self.padding), _pair(self.dilation)
        return self.postfilter(dense_max2d(x, *window))


class FilterAfterAvgPool(Filtered):
    """An average pool at stride 1, then the filter; a partial window averages what it covers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.ceil_mode:
            return self.postfilter(super().forward(x))
        extra = _partial_windows(self, x)
        top, left = _pair(self.padding)
        border = (left, left, top, top)
        total = F.avg_pool2d(F.pad(F.pad(x, border), extra), self.kernel_size, 1)
        if self.divisor_override is not None:
            height, width = _pair(self.kernel_size)
            return self.postfilter(total * (height * width / self.divisor_override))
        counted = torch.ones_like(x[:1, :1])
        counted = F.pad(counted, border, value=float(self.count_include_pad))
        return self.postfilter(total / F.avg_pool2d(F.pad(counted, extra), self.kernel_size, 1))


class SamePadded(Filtered):
    """Runs densely what pads by TensorFlow's "same" rule, which depends on the stride.

    The border is that of the original stride; the module pads by its own rule for stride 1 again,
    and that is cut off.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        border, windows = [], []
        for axis in (1, 0):  # F.pad starts with the last axis
            stride, dilation = self.same_stride[axis], _pair(getattr(self, "dilation", 1))[axis]
            windows.append(dilation * (_pair(self.kernel_size)[axis] - 1) + 1)
            size = x.shape[axis - 2]
            # Written with a remainder, which exporters with free sizes follow.
            total = windows[-1] - 1 - (size - 1) % stride
            if windows[-1] < stride:
                total = _larger(total, 0)
            border += [total // 2, total - total // 2]
        value = -torch.inf if isinstance(self, nn.MaxPool2d) else 0.0
        x = super().forward(F.pad(x, border, value=value))
        for axis, window in zip((-1, -2), windows):
            x = x.narrow(axis, (window - 1) // 2, x.shape[axis] - (window - 1))
        return x


def convert(module: nn.Module, mixin: type[Filtered], layer: nn.Module) -> None:
    """Give `module` the filter `layer`, which carries the stride, in place."""
    setattr(module, "prefilter" if mixin is FilterBefore else "postfilter", layer)
    mix_in(module, mixin)


def filter_of(module: nn.Module) -> nn.Module | None:
    """The filter that a converted module holds."""
    return getattr(module, "prefilter", getattr(module, "postfilter", None))


def make_dense(module: nn.Module) -> None:
    """Set the stride of a convolution or a pool to 1; a merging layer has none to set."""
    if not hasattr(module, "stride"):
        return
    if pads_as_same(module):
        module.same_stride = _pair(module.stride)
        mix_in(module, SamePadded)
    stride = module.stride
    module.stride = 1 if isinstance(stride, int) else type(stride)([1] * len(stride))


def pads_as_same(module: nn.Module) -> bool:
    """Whether a module pads by a rule that depends on its stride (timm's `Conv2dSame` and such)."""
    return getattr(module, "same_pad", type(module).__name__.endswith("Same"))


def stride_of(module: nn.Module) -> int:
    """The stride of a convolution, pool or merging layer; 1 where there is none.

    Raises:
        ValueError: where the strides of the two axes differ.
    """
    stride = _pair(getattr(module, "stride", 1) or 1)
    if stride[0] != stride[1]:
        raise ValueError(f"stride={stride} differs between the axes: such a site can't be filtered")
    return int(stride[0])


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _larger(a: int, b: int) -> int:
    """The larger of two sizes, which may be symbols of `torch.export`, or tensors of a tracer."""
    if torch.jit.is_tracing():
        return torch.maximum(torch.as_tensor(a), torch.as_tensor(b))
    return torch.sym_max(a, b)


def _smaller(a: int, b: int) -> int:
    """The smaller of two such sizes."""
    if torch.jit.is_tracing():
        return torch.minimum(torch.as_tensor(a), torch.as_tensor(b))
    return torch.sym_min(a, b)


def _partial_windows(pool: nn.Module, x: torch.Tensor) -> tuple[int, int, int, int]:
    """Pixels that a `ceil_mode` pool reads beyond the right and bottom border, as F.pad's sizes."""
    if not pool.ceil_mode:
        return (0, 0, 0, 0)
    stride = pool.postfilter.stride
    kernel, padding = _pair(pool.kernel_size), _pair(pool.padding)
    dilation = _pair(getattr(pool, "dilation", 1))
    extra = []
    for axis in (0, 1):
        size = x.shape[axis - 2] + 2 * padding[axis]
        window = dilation[axis] * (kernel[axis] - 1) + 1
        # A window may not start in the padding behind the map.
        last = (x.shape[axis - 2] + padding[axis] - 1) // stride
        steps = _smaller(out_size(size - window, stride), last)
        extra.append(_larger(0, steps * stride + window - size))
    return (0, extra[1], 0, extra[0])
