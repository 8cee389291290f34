"""Filters in the form that a runtime's graph should have: few nodes, standard operators.

A fixed filter is one strided depthwise convolution. A predicted one is a sum of L maps of each
channel with L weights a position: the maps are the k² pixels of the window (free taps), or the
image under each fixed filter of a bank.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.layers import (
    AdaptiveBlurPool2d,
    BlurPool2d,
    FilterBankPool2d,
    PredictedFilter,
    TrainedBlurPool2d,
    fuse,
)
from aa_plugins.layers.predicted import fold

# Borders by their names in torch and in ONNX; a circular one is made of parts of the map.
MODES = {"reflect": "reflect", "replicate": "replicate", "zeros": "constant", "circular": None}


class FixedFilter(nn.Module):
    """A filter that doesn't depend on the image, (N, C, H, W) → (N, C, ⌈H/s⌉, ⌈W/s⌉).

    Args:
        kernel: (k, k) for all channels, or (C, k, k).
    """

    def __init__(self, kernel: torch.Tensor, channels: int, stride: int, pad_mode: str) -> None:
        super().__init__()
        self.stride = stride
        self.border = Border(kernel.shape[-1], pad_mode)
        side = kernel.shape[-2:]
        weight = kernel.view(-1, 1, *side).expand(channels, 1, *side)
        self.conv = _convolution(weight, stride, self.border.left_to_convolution, channels)

    @classmethod
    def of(cls, layer: BlurPool2d | TrainedBlurPool2d) -> FixedFilter:
        """The exported form of a layer."""
        trained = isinstance(layer, TrainedBlurPool2d)
        kernel = layer.kernels().detach() if trained else layer.kernel(torch.empty(0))
        return cls(kernel, layer.channels, layer.stride, layer.pad_mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.border(x))


class WeightedMaps(nn.Module):
    """A predicted filter whose norm is folded, (N, C, H, W) → (N, C, ⌈H/s⌉, ⌈W/s⌉).

    A subclass says what the maps of each channel are, and how they are summed.
    """

    def __init__(self, layer: PredictedFilter) -> None:
        super().__init__()
        self.groups, self.channels, self.stride = layer.groups, layer.channels, layer.stride
        self.members = layer.logits_per_group
        self.joint = getattr(layer, "normalize", "group") == "joint"
        self.kernels, scale, offset = _mixture(layer)
        self.maps = len(self.kernels)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        self.predictor = Predictor(layer)
        self.border = self.predictor.border  # also that of what is weighted, where it can be
        if self.predictor.pooled:
            self.border = Border(layer.kernel_size, layer.pad_mode)

    def weights(self, x: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        """(N, G, 1, L, H' · W') of an input with and without its border; (…, 1) where one filter
        serves the whole image."""
        logits = self.predictor(x, padded)
        if self.joint:
            weights = logits.softmax(1).flatten(2).unflatten(1, (self.groups, 1, self.members))
        else:
            weights = logits.flatten(2).unflatten(1, (self.groups, 1, self.members)).softmax(3)
        if self.scale is not None:
            if self.maps > self.members:  # the gate's unit impulse is no member of the bank
                weights = F.pad(weights, (0, 0, 0, self.maps - self.members))
            weights = weights * self.scale + self.offset
        return weights

    def by_group(self, maps: torch.Tensor, *each: int) -> torch.Tensor:
        """(N, C · L, H', W') → (N, G, C / G, L, H' · W')."""
        return maps.flatten(2).unflatten(1, (self.groups, self.channels // self.groups, *each))


class FreeTaps(WeightedMaps):
    """Free taps: the k² pixels of every window by one convolution, and one sum of them."""

    def __init__(self, layer: AdaptiveBlurPool2d) -> None:
        super().__init__(layer)
        side = layer.kernel_size
        weight = self.kernels.view(-1, 1, side, side).repeat(layer.channels, 1, 1, 1)
        padding = self.border.left_to_convolution
        self.windows = _convolution(weight, layer.stride, padding, layer.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = self.border(x)
        windows = self.windows(padded)
        maps = self.by_group(windows, self.maps) * self.weights(x, padded)
        return maps.sum(3).flatten(1, 2).unflatten(2, windows.shape[-2:])


class Mixture(WeightedMaps):
    """A bank: as many fixed filters as it has members, each no larger than need be, and a sum.

    Runtimes have a fast path for depthwise convolutions with one map a channel alone.
    """

    def __init__(self, layer: FilterBankPool2d) -> None:
        super().__init__(layer)
        shared = (layer.channels, layer.stride, layer.pad_mode)
        side = layer.kernel_size
        self.filters = nn.ModuleList(
            FixedFilter(_without_zeros(kernel.view(side, side)), *shared) for kernel in self.kernels
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = self.border(x)
        weights = self.weights(x, padded)
        total = None
        for index, filter in enumerate(self.filters):
            same = filter.border.same_as(self.border)
            filtered = filter.conv(padded) if same else filter(x)
            weighted = self.by_group(filtered) * weights[:, :, :, index]
            total = weighted if total is None else total + weighted
        return total.flatten(1, 2).unflatten(2, filtered.shape[-2:])


class Predictor(nn.Module):
    """What gives a filter's logits, (N, C, H, W) → (N, G · L, ⌈H/s⌉, ⌈W/s⌉)."""

    def __init__(self, layer: PredictedFilter) -> None:
        super().__init__()
        self.reader = FixedFilter.of(layer.reader) if layer.predictor_input == "blurred" else None
        self.pooled = layer.predictor_input == "pooled"
        first, *rest = layer.conv if isinstance(layer.conv, nn.Sequential) else [layer.conv]
        self.border = Border(first.kernel_size[0], first.pad_mode)
        step, groups = first.stride[0], first.groups
        padding = self.border.left_to_convolution
        self.conv = _convolution(first.weight.detach(), step, padding, groups, first.bias)
        self.pointwise = copy.deepcopy(rest[0]) if rest else nn.Identity()
        self.norm = copy.deepcopy(layer.norm)  # none where it could be folded

    def forward(self, x: torch.Tensor, padded: torch.Tensor) -> torch.Tensor:
        """Of a map, and of the same with the predictor's border."""
        if self.pooled:
            read = x.mean((2, 3), keepdim=True)
        else:
            read = padded if self.reader is None else self.border(self.reader(x))
        return self.norm(self.pointwise(self.conv(read)))


class Border(nn.Module):
    """What is laid around a map, (N, C, H, W) → (N, C, H + k − 1, W + k − 1).

    Zeros on both sides alike are left to the convolution, which has them for free.
    """

    def __init__(self, kernel_size: int, pad_mode: str) -> None:
        super().__init__()
        before, after = (kernel_size - 1) // 2, kernel_size // 2
        self.sizes, self.mode = (before, after, before, after), MODES[pad_mode]
        self.free = pad_mode == "zeros" and before == after

    @property
    def left_to_convolution(self) -> int:
        return self.sizes[0] if self.free else 0

    def same_as(self, other: Border) -> bool:
        return (self.sizes, self.mode) == (other.sizes, other.mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.free or not any(self.sizes):
            return x
        if self.mode is None:
            return self._around(x)
        return F.pad(x, self.sizes, mode=self.mode)

    def _around(self, x: torch.Tensor) -> torch.Tensor:
        """Circular: hardly any runtime knows it. Maps must be as large as it reaches."""
        before, after = self.sizes[:2]
        for axis in (2, 3):
            last = x.narrow(axis, x.shape[axis] - before, before)
            parts = (last, x, x.narrow(axis, 0, after))
            x = torch.cat([part for part, size in zip(parts, (before, 1, after)) if size], axis)
        return x


def exportable(model: nn.Module) -> nn.Module:
    """A copy of a converted network, in eval mode, that computes the same by few operators.

    Norms of predicted filters are folded. Reflection needs maps larger than it reaches, a circular
    border maps as large.
    """
    model = copy.deepcopy(model).eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    fuse(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            fixed = isinstance(child, BlurPool2d) and not isinstance(parent, PredictedFilter)
            if fixed or isinstance(child, TrainedBlurPool2d):
                setattr(parent, name, FixedFilter.of(child))
            elif isinstance(child, PredictedFilter):
                form = Mixture if isinstance(child, FilterBankPool2d) else FreeTaps
                setattr(parent, name, form(child))
    return model.to(device)


def _convolution(
    weight: torch.Tensor,
    stride: int,
    padding: int,
    groups: int,
    bias: torch.Tensor | None = None,
) -> nn.Conv2d:
    """A convolution with these constants."""
    outputs, per_group, *size = weight.shape
    inputs = per_group * groups
    conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=bias is not None)
    conv.weight = nn.Parameter(weight.clone(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv.to(weight.device, weight.dtype)


@torch.no_grad()
def _mixture(
    layer: PredictedFilter,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Kernels (L', k²), and how a softmax's weights go over to theirs: scale and offset, or None.

    Gates are constants after training: weights · gate + start · (1 − gate).
    """
    area = layer.kernel_size**2
    if isinstance(layer, FilterBankPool2d):
        like = torch.empty(0)
        kernels, start = layer.members(like), layer.start(like)
    else:
        kernels, start = torch.eye(area), None
    if layer.gate is None:
        return kernels, None, None
    gate = fold(layer.gate).cpu().view(1, -1, 1, 1, 1)
    if layer.share() is not None:  # mixed with a unit impulse
        impulse = torch.eye(area)[area // 2].to(kernels)
        same = (kernels == impulse).all(1)
        if not same.any():
            kernels, same = torch.cat([kernels, impulse[None]]), torch.cat([same, same.new_ones(1)])
        start = same.to(kernels.dtype)
    return kernels, gate, (1 - gate) * start.view(1, 1, 1, -1, 1)


def _without_zeros(kernel: torch.Tensor) -> torch.Tensor:
    """A kernel (k, k) without rows and columns of zeros around it."""
    while len(kernel) > 1 and kernel[0].abs().max() == kernel[-1].abs().max() == 0:
        kernel = kernel[1:-1, 1:-1]
    return kernel
