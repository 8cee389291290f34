"""The phase average: what a network says when the sampling grid no longer matters.

The mean of its predictions over views moved within one total stride, brought back onto their
overlap. Averaged at test time over all S² phases it loses nothing to aliasing in its interior, at
S² forward passes (Zhong et al., ICCV 2023, use the average of classes; ours is of pixels, too).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.functional import pad

from aa_plugins.training.views import MovedViews, Offset, moved_views, spread_offsets


@torch.no_grad()
def phase_average(network: nn.Module, window: torch.Tensor, moved: MovedViews) -> torch.Tensor:
    """Mean of the probabilities of all views on their overlap, one forward pass at a time.

    Args:
        network: (N, 3, h, w) → logits, (N, C) or (N, C, h', w').
        window: (N, 3, H, W), of which the views are crops.

    Returns:
        (N, C), or (N, C, height, width) of the overlap; float32.
    """
    total: torch.Tensor | float = 0.0
    for number, view in enumerate(moved.inputs(window)):
        total = total + moved.aligned(network(view).float(), number).softmax(1)
    return total / len(moved.views)


class PhaseAverage(nn.Module):
    """A network averaged over `phases` sampling phases at test time, at as many forward passes.

    Args:
        network: (N, 3, h, w) → logits, (N, C) or (N, C, h', w').
        stride: S, its total stride in pixels.
        phases: K, a power of two, spread evenly over the S² phases; or S², all of them.

    Raises:
        ValueError: for another number of phases.
    """

    def __init__(self, network: nn.Module, stride: int, phases: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride
        self.offsets = spread_offsets(phases, stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) → logarithms of the mean probabilities, (N, C) or (N, C, H, W)."""
        return averaged(self.network, images, self.stride, self.offsets)


def averaged(
    predict: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    stride: int,
    offsets: Sequence[Offset],
) -> torch.Tensor:
    """Logarithms of the mean probabilities of images moved by `offsets`, as logits of the images.

    The image moves by at most half a stride either way and keeps its size; what comes in at its
    borders is mirrored, and no pixel's mean holds a prediction of that.

    Raises:
        ValueError: where no phase leaves the image in place, (0, 0).
    """
    if (0, 0) not in offsets:
        raise ValueError(f"offsets={offsets}: give (0, 0), too, which alone shows every pixel")
    height, width = images.shape[-2:]
    reach = (stride + 1) // 2
    around = pad(images, (reach,) * 4, mode="reflect")
    total: torch.Tensor | float = 0.0
    seen: torch.Tensor | float = 0.0
    for dy, dx in offsets:
        dy, dx = (d if d < reach else d - stride for d in (dy, dx))
        moved = around[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        whole = moved_views((height, width), [(0, 0)])
        prediction = whole.aligned(predict(moved).float(), 0).softmax(1)
        shown = torch.ones_like(prediction[:1, :1])
        if prediction.ndim == 4:  # back in place, without what was mirrored
            back = (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0))
            inside = (..., _inside(dy, height), _inside(dx, width))
            prediction, shown = (pad(part[inside], back) for part in (prediction, shown))
        total, seen = total + prediction, seen + shown
    return (total / seen).log()


def _inside(move: int, size: int) -> slice:
    """Of a view moved by `move` pixels, those that show the image itself."""
    return slice(max(-move, 0), size - max(move, 0))
