"""Views of one image and the pairs of views that are compared.

A view is what the network sees: a crop of the test image, the reference crop rolled on itself, or
a crop moved by a fraction of a pixel. One convention covers all three: **a view with offset
(oy, ox) shows at its pixel (y, x) what the reference crop shows at (y + oy, x + ox)**. All
coordinates are pixels of the network's input, rows before columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

Prepared = TypeVar("Prepared")


class Box(NamedTuple):
    """A rectangle of pixels; ``bottom`` and ``right`` are the first row and column outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return max(0, self.bottom - self.top)

    @property
    def width(self) -> int:
        return max(0, self.right - self.left)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def moved(self, dy: int, dx: int) -> Box:
        return Box(self.top + dy, self.left + dx, self.bottom + dy, self.right + dx)

    def inset(self, margin: int) -> Box:
        """What lies at least ``margin`` pixels inside of all four edges."""
        return Box(self.top + margin, self.left + margin, self.bottom - margin, self.right - margin)

    def intersection(self, other: Box) -> Box:
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )


@dataclass(frozen=True)
class View:
    """One input of the network.

    ``crop`` lies in image coordinates (and outside of the image where a protocol pads with
    zeros), ``roll`` moves the content circularly inside the crop, ``fraction`` is a Fourier shift
    in (-1, 1) pixels. ``repeat`` tells a second run of the same pixels (the noise floor) from the
    first.
    """

    crop: Box
    roll: tuple[int, int] = (0, 0)
    fraction: tuple[float, float] = (0.0, 0.0)
    repeat: int = 0

    @property
    def shown(self) -> Box:
        """The part of the image that the view shows in one piece, in image coordinates."""
        (top, left, bottom, right), (dy, dx) = self.crop, self.roll
        return Box(top + max(0, dy), left + max(0, dx), bottom + min(0, dy), right + min(0, dx))

    def box(self, region: Box) -> Box:
        """A region of the image, within :attr:`shown`, in the coordinates of this view."""
        return region.moved(-self.crop.top - self.roll[0], -self.crop.left - self.roll[1])


@dataclass(frozen=True)
class Pair:
    """Two views to compare, by their index in the plan, and where they overlap.

    ``shift`` is the offset of ``b`` minus that of ``a``. ``region`` is the compared part of the
    image in image coordinates, ``box_a`` and ``box_b`` the same pixels in either view. ``role``:

    ============== ==========================================================================
    ``mean``        part of the reported mean
    ``multiple``    a listed shift that is a multiple of a stride: on the curve, not in the mean
    ``noise_floor`` shift 0: the same pixels, run twice
    ``same_phase``  shift S
    ``near``        shift S ± 1
    ``half``        shift S ± S/2
    ============== ==========================================================================

    The region is the whole overlap; of the last three roles the overlap less the plan's margin.
    """

    a: int
    b: int
    shift: tuple[float, float]
    role: str
    region: Box
    box_a: Box
    box_b: Box


@dataclass(frozen=True)
class ViewPlan:
    """All views of an image, each to be run once, and the pairs to compare.

    ``views[i]`` is the i-th input; predictions are handed to the scorers in this order. All views
    have the size of ``crop``, the centred reference crop. Views that later views are compared with
    come early, so that a scorer fed one view at a time holds few of them. ``margin`` is the
    protocol's, or None where the image is too small for it.
    """

    image_id: str | int
    height: int
    width: int
    crop: Box
    circular: bool
    views: tuple[View, ...]
    pairs: tuple[Pair, ...]
    margin: int | None = None

    def shifted_views(self) -> list[int]:
        """Indices of the views in the mean other than the reference, in order."""
        reference = View(self.crop)
        used = {index for pair in self.pairs if pair.role == "mean" for index in (pair.a, pair.b)}
        return sorted(index for index in used if self.views[index] != reference)

    def compared(
        self, predictions: Iterable[Any], prepare: Callable[[int, Any], Prepared]
    ) -> Iterator[tuple[int, Pair, Prepared, Prepared]]:
        """Reads the predictions of the views one at a time and yields every pair as soon as both
        of its views are there; a view is let go after its last pair.

        Args:
            predictions: one a view, in order.
            prepare: from a view's index and prediction to what is compared.

        Returns:
            the pair's number, the pair, and what was prepared of its views a and b.

        Raises:
            ValueError: too many or too few predictions.
        """
        last = list(range(len(self.views)))
        for pair in self.pairs:
            for index in (pair.a, pair.b):
                last[index] = max(last[index], pair.a, pair.b)
        held: dict[int, Prepared] = {}
        index = -1
        for index, prediction in enumerate(predictions):
            if index == len(self.views):
                break
            held[index] = prepare(index, prediction)
            for number, pair in enumerate(self.pairs):
                if max(pair.a, pair.b) == index:
                    yield number, pair, held[pair.a], held[pair.b]
            held = {i: kept for i, kept in held.items() if last[i] > index}
        if index + 1 != len(self.views):
            more = index == len(self.views)
            raise ValueError(
                f"image {self.image_id!r}: {'more than ' if more else ''}{index + (not more)} "
                f"predictions for {len(self.views)} views; give one a view, in the plan's order"
            )


def extract(image: torch.Tensor | np.ndarray, view: View) -> torch.Tensor | np.ndarray:
    """The pixels of a view.

    Args:
        image: the network's input, (..., H, W), a tensor or an array.
        view: a view of a plan made for this height and width.

    Returns:
        (..., height, width) of the same type; integers come back as float32 from a sub-pixel
        shift. Pixels outside of the image (``zero_pad`` protocols only) are 0.
    """
    if isinstance(image, np.ndarray):
        return extract(torch.from_numpy(np.ascontiguousarray(image)), view).numpy()
    if any(view.fraction):
        image = fourier_shift(image, view.fraction)
    height, width = image.shape[-2:]
    inside = view.crop.intersection(Box(0, 0, height, width))
    crop = image[(..., *inside.slices)]
    if inside != view.crop:
        outside = (
            inside.left - view.crop.left,
            view.crop.right - inside.right,
            inside.top - view.crop.top,
            view.crop.bottom - inside.bottom,
        )
        crop = torch.nn.functional.pad(crop, outside)
    if any(view.roll):
        crop = torch.roll(crop, (-view.roll[0], -view.roll[1]), dims=(-2, -1))
    return crop.contiguous()


def fourier_shift(image: torch.Tensor, shift: tuple[float, float]) -> torch.Tensor:
    """The band-limited image at (y + dy, x + dx): (..., H, W) to (..., H, W), at least float32.

    The image is mirrored at its borders first (half-sample symmetry), so that the periodic
    extension that a Fourier shift implies has no jump and rings little.
    """
    image = image if image.dtype in (torch.float32, torch.float64) else image.float()
    for dim, distance in zip((-2, -1), shift, strict=True):
        if distance:
            size = image.shape[dim]
            spectrum = torch.fft.rfft(torch.cat([image, image.flip(dim)], dim), dim=dim)
            cycles = torch.arange(size + 1, device=image.device, dtype=image.dtype) / (2 * size)
            phase = torch.exp(2j * torch.pi * distance * cycles)
            if dim == -2:
                phase = phase[:, None]
            shifted = torch.fft.irfft(spectrum * phase, n=2 * size, dim=dim)
            image = shifted.narrow(dim, 0, size)
    return image
