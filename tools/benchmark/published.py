"""The published formula as it reads, for comparison only (Zou et al., BMVC 2020, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins.layers import AdaptiveBlurPool2d, PredictedFilter


class PublishedFilter(nn.Module):
    """Predicts and filters at every position through an unfolded tensor, then subsamples.

    Written from the paper's formula. The softmax runs over all groups and taps, as it does in the
    published code. (N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉).
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, stride: int = 2, groups: int = 8
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.groups = kernel_size, stride, groups
        self.conv = nn.Conv2d(channels, groups * kernel_size**2, kernel_size, bias=False)
        self.norm = nn.BatchNorm2d(groups * kernel_size**2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        n, channels, height, width = x.shape
        area, border = self.kernel_size**2, self.kernel_size // 2
        padded = F.pad(x, (border,) * 4, mode="reflect")
        weights = self.norm(self.conv(padded)).softmax(1)
        windows = F.unfold(padded, self.kernel_size)
        windows = windows.view(n, self.groups, channels // self.groups, area, height, width)
        filtered = (windows * weights.view(n, self.groups, 1, area, height, width)).sum(3)
        return filtered.view(n, channels, height, width)[:, :, :: self.stride, :: self.stride]


def replace_filters(model: nn.Module) -> nn.Module:
    """Exchange the adaptive filters of an anti-aliased network for the published formula."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, AdaptiveBlurPool2d):
                options = (layer.channels, layer.kernel_size, layer.stride, layer.groups)
                setattr(parent, name, PublishedFilter(*options).train(layer.training))
            elif isinstance(layer, PredictedFilter):
                raise ValueError(f"{name}: only the adaptive filter has a published formula")
    return model
