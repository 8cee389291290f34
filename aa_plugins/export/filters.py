"""Filters in the form that a runtime's graph should have: few nodes, standard operators.

Every filter is one strided depthwise convolution that computes L maps of each channel, and a sum of
these maps with L weights a position. The maps are the k² pixels of the window (free taps), or the
image under each fixed filter of a bank; a fixed filter has one map and no weights.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.layers import BlurPool2d, FilterBankPool2d, PredictedFilter, fuse
from aa_plugins.layers.predicted import fold

# Borders by their names in torch and in ONNX; a circular one is made of parts of the map.
MODES = {"reflect": "reflect", "replicate": "replicate", "zeros": "constant", "circular": None}


class FixedFilter(nn.Module):
    """A fixed filter, (N, C, H, W) → (N, C, ⌈H/s⌉, ⌈W/s⌉)."""

    def __init__(self, layer: BlurPool2d) -> None:
        super().__init__()
        self.stride = layer.stride
        self.border = Border(layer.kernel_size, layer.pad_mode)
        kernel = layer.kernel(torch.empty(0))
        weight = kernel.repeat(layer.channels, 1, 1, 1)
        padding = self.border.left_to_convolution
        self.conv = _convolution(weight, layer.stride, padding, layer.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.border(x))


class WeightedMaps(nn.Module):
    """A predicted filter whose norm is folded, (N, C, H, W) → (N, C, ⌈H/s⌉, ⌈W/s⌉)."""

    def __init__(self, layer: PredictedFilter) -> None:
        super().__init__()
        self.groups, self.channels, self.stride = layer.groups, layer.channels, layer.stride
        self.members = layer.logits_per_group
        self.joint = getattr(layer, "normalize", "group") == "joint"
        kernels, scale, offset = _mixture(layer)
        self.maps = len(kernels)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        self.border = Border(layer.kernel_size, layer.pad_mode)
        side = layer.kernel_size
        weight = kernels.view(self.maps, 1, side, side).repeat(layer.channels, 1, 1, 1)
        padding = self.border.left_to_convolution
        self.windows = _convolution(weight, layer.stride, padding, layer.channels)
        self.predictor = Predictor(layer)
        # The predictor reads the very same border where it is as wide as the filter.
        self.shares_border = self.predictor.shares(self.border)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = self.border(x)
        logits = self.predictor(padded if self.shares_border else x, not self.shares_border)
        size = logits.shape[-2:]
        if self.joint:
            weights = logits.softmax(1).flatten(2).unflatten(1, (self.groups, 1, self.members))
        else:
            weights = logits.flatten(2).unflatten(1, (self.groups, 1, self.members)).softmax(3)
        if self.scale is not None:
            if self.maps > self.members:  # the gate's unit impulse is no member of the bank
                weights = F.pad(weights, (0, 0, 0, self.maps - self.members))
            weights = weights * self.scale + self.offset
        per_group = self.channels // self.groups
        maps = self.windows(padded).flatten(2).unflatten(1, (self.groups, per_group, self.maps))
        return (maps * weights).sum(3).flatten(1, 2).unflatten(2, size)


class Predictor(nn.Module):
    """What gives a filter's logits, (N, C, H, W) → (N, G · L, ⌈H/s⌉, ⌈W/s⌉)."""

    def __init__(self, layer: PredictedFilter) -> None:
        super().__init__()
        self.reader = (
            FixedFilter(layer.reader) if layer.predictor_input == "blurred" else nn.Identity()
        )
        first, *rest = layer.conv if isinstance(layer.conv, nn.Sequential) else [layer.conv]
        self.border = Border(first.kernel_size[0], first.pad_mode)
        step, groups = first.stride[0], first.groups
        padding = self.border.left_to_convolution
        self.conv = _convolution(first.weight.detach(), step, padding, groups, first.bias)
        self.pointwise = copy.deepcopy(rest[0]) if rest else nn.Identity()
        self.norm = copy.deepcopy(layer.norm)  # none where it could be folded

    def shares(self, border: Border) -> bool:
        """Whether an input that has got `border` is what the first convolution reads."""
        return isinstance(self.reader, nn.Identity) and border.same_as(self.border)

    def forward(self, x: torch.Tensor, with_border: bool) -> torch.Tensor:
        x = self.reader(x)
        return self.norm(self.pointwise(self.conv(self.border(x) if with_border else x)))


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
            if isinstance(child, BlurPool2d) and not isinstance(parent, PredictedFilter):
                setattr(parent, name, FixedFilter(child))
            elif isinstance(child, PredictedFilter):
                setattr(parent, name, WeightedMaps(child))
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
