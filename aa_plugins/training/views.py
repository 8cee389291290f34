"""Moved views of a batch: crops of one window at other sampling phases, and what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import qmc
from torch.nn.functional import interpolate

from aa_plugins.evaluation.views import Box, View, extract

Offset = tuple[int, int]


@dataclass(frozen=True)
class MovedViews:
    """Crops of equal size of a window, and the overlap on which their predictions are compared.

    ``overlap`` is in the window's coordinates, as the crops are.
    """

    views: tuple[View, ...]
    overlap: Box

    def inputs(self, window: torch.Tensor) -> Iterator[torch.Tensor]:
        """Each view's pixels, one at a time: (N, C, H, W) → (N, C, h, w)."""
        for view in self.views:
            yield extract(window, view)

    def aligned(self, logits: torch.Tensor, number: int) -> torch.Tensor:
        """Logits of a view, brought onto the overlap.

        Args:
            logits: (N, C) of images, which have no place; or (N, C, h', w') of pixels, resized to
                the view's size where they are coarser.
            number: of the view.

        Raises:
            ValueError: for logits of another number of dimensions.
        """
        if logits.ndim == 2:
            return logits
        if logits.ndim != 4:
            raise ValueError(
                f"logits of shape {tuple(logits.shape)}: give (N, classes), or (N, classes, h, w) "
                "for a dense prediction"
            )
        view = self.views[number]
        size = view.crop.height, view.crop.width
        if logits.shape[-2:] != size:
            logits = interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits[(..., *view.box(self.overlap).slices)]


def moved_views(size: tuple[int, int], offsets: Sequence[Offset], margin: int = 0) -> MovedViews:
    """Views of `size` at `offsets` from the window's top left corner.

    Args:
        size: (h, w) of the views, pixels of the network's input.
        offsets: (dy, dx), whole pixels, 0 or more.
        margin: pixels left out along the overlap's edge, where views differ for other reasons than
            their phase.

    Raises:
        ValueError: where no overlap is left.
    """
    height, width = size
    crops = [Box(dy, dx, dy + height, dx + width) for dy, dx in offsets]
    overlap = crops[0]
    for crop in crops:
        overlap = overlap.intersection(crop)
    top, left, bottom, right = overlap
    overlap = Box(top + margin, left + margin, bottom - margin, right - margin)
    if not (overlap.height and overlap.width):
        raise ValueError(
            f"views of {height}×{width} pixels with margin={margin} don't overlap: make them larger"
        )
    return MovedViews(tuple(map(View, crops)), overlap)


def random_offsets(count: int, stride: int, random: np.random.Generator) -> list[Offset]:
    """`count` different offsets, uniform within one stride along each axis."""
    _check(count, stride)
    chosen = random.choice(stride**2, count, replace=False)
    return [(int(number) // stride, int(number) % stride) for number in chosen]


def drawn_offsets(count: int, stride: int) -> list[Offset]:
    """The same drawn by torch's generator, which hosts seed."""
    _check(count, stride)
    chosen = torch.randperm(stride**2)[:count].tolist()
    return [divmod(number, stride) for number in chosen]


def spread_offsets(count: int, stride: int) -> list[Offset]:
    """`count` different offsets, spread evenly within one stride: Sobol's points, or all."""
    _check(count, stride)
    if count == stride**2:
        return [(dy, dx) for dy in range(stride) for dx in range(stride)]
    if count & (count - 1):
        raise ValueError(f"{count} phases: choose a power of two, or all {stride**2}")
    points = np.floor(qmc.Sobol(2, scramble=False).random(count) * stride).astype(int)
    return [(int(dy), int(dx)) for dy, dx in points]


def _check(count: int, stride: int) -> None:
    if not 1 <= count <= stride**2:
        raise ValueError(
            f"{count} phases at a stride of {stride}: there are {stride**2}, choose 1 or more"
        )
