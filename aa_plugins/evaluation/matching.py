"""Instances cut to an overlap, how far two of them overlap, and who matches whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as rle_codec

from aa_plugins.evaluation.views import Box

LEAST_AREA = 10  # in pixels; what is smaller after cutting is dropped (Zou et al.)
LEAST_IOU = 0.5  # no threshold is lower, so smaller overlaps are never computed


class Patch(NamedTuple):
    """A mask without the empty frame around it: (h, w) booleans, the first at (top, left)."""

    top: int
    left: int
    bits: np.ndarray

    @property
    def box(self) -> Box:
        height, width = self.bits.shape
        return Box(self.top, self.left, self.top + height, self.left + width)

    def cut(self, box: Box) -> Patch:
        """The part inside a box, in the box's coordinates."""
        inside = self.box.intersection(box)
        if not inside.height or not inside.width:
            return Patch(0, 0, self.bits[:0, :0])
        bits = self.bits[inside.moved(-self.top, -self.left).slices]
        return Patch(inside.top - box.top, inside.left - box.left, bits)

    def shared(self, other: Patch) -> int:
        """The number of pixels that two masks of one frame share."""
        both = self.box.intersection(other.box)
        if not both.height or not both.width:
            return 0
        one, two = (p.bits[both.moved(-p.top, -p.left).slices] for p in (self, other))
        return int(np.count_nonzero(one & two))

    def encoded(self, height: int, width: int) -> dict:
        """The mask in a frame of that size, as COCO run lengths."""
        columns = np.zeros((self.bits.shape[1], height), np.int8)
        columns[:, self.top : self.top + self.bits.shape[0]] = self.bits.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0))
        edges = [0, *(changes + self.left * height).tolist()]
        if edges[-1] < height * width:
            edges.append(height * width)
        counts = np.diff(edges).tolist()
        return rle_codec.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def patch(mask: dict | np.ndarray | torch.Tensor) -> Patch:
    """The patch of a mask: COCO run lengths (compressed or not) or (h, w) booleans.

    Run lengths are unpacked inside the mask's columns alone: pycocotools' decoder writes whole
    frames, which for 100 small masks a view costs more than all of the comparison.
    """
    if not isinstance(mask, dict):
        mask = np.asarray(mask, bool)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return Patch(0, 0, mask[:0, :0])
        box = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
        return Patch(box.top, box.left, mask[box.slices].copy())
    height = mask["size"][0]
    edges = np.cumsum(_run_lengths(mask["counts"]))
    starts, ends = edges[0:-1:2], edges[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return Patch(0, 0, np.zeros((0, 0), bool))
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    edges = np.stack([starts, ends], 1).ravel() - left * height
    lengths = np.diff(edges, prepend=0, append=(right - left) * height)
    ones = np.arange(len(lengths)) % 2 == 1
    bits = np.repeat(ones, lengths).reshape(right - left, height).T
    rows = np.flatnonzero(bits.any(1))
    top = int(rows[0])
    return Patch(top, left, np.ascontiguousarray(bits[top : rows[-1] + 1]))


def _run_lengths(counts: bytes | str | list[int]) -> np.ndarray:
    """COCO's run lengths: zeros, ones, zeros, ..., down the columns.

    Compressed, a number is written 5 bits a character, lowest first, from character 48; bit 5
    says that more follow, bit 4 of the last is the sign. From the fourth number on it is the
    difference from the number two before.
    """
    if not isinstance(counts, (bytes, str)):
        return np.asarray(counts, np.int64)
    codes = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8)
    codes = codes.astype(np.int64) - 48
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    sizes = last - first + 1
    places = np.arange(len(codes)) - np.repeat(first, sizes)
    numbers = np.add.reduceat((codes & 31) << 5 * places, first)
    numbers -= np.where(codes[last] & 16, 1 << 5 * sizes, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def encode(mask: dict | np.ndarray | torch.Tensor) -> dict:
    """A mask as compressed COCO run lengths."""
    if isinstance(mask, dict):
        height, width = mask["size"]
        compressed = isinstance(mask["counts"], (bytes, str))
        return mask if compressed else rle_codec.frPyObjects(mask, height, width)
    # Several times cheaper than pycocotools' encoder, which turns and reads whole frames.
    return patch(mask).encoded(*mask.shape)


@dataclass
class Instances:
    """n predicted instances of a view or of an overlap: ``scores`` and ``labels`` (n,), ``boxes``
    (n, 4) as x0, y0, x1, y1 in pixels, ``patches`` if there are masks."""

    scores: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    patches: list[Patch] | None = None

    def cut_boxes(self, box: Box) -> tuple[Instances, np.ndarray]:
        """The instances whose boxes fill at least 10 pixels of ``box``, in its coordinates, and
        these areas."""
        boxes = clip(self.boxes, box)
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        kept = areas >= LEAST_AREA
        return Instances(self.scores[kept], self.labels[kept], boxes[kept]), areas[kept]

    def cut_masks(self, box: Box) -> tuple[Instances, np.ndarray]:
        """The instances whose masks fill at least 10 pixels of ``box``, in its coordinates, and
        these areas."""
        patches = [mask.cut(box) for mask in self.patches]
        areas = np.array([np.count_nonzero(mask.bits) for mask in patches], np.float64)
        kept = areas >= LEAST_AREA
        cut = [mask for mask, keep in zip(patches, kept) if keep]
        boxes = clip(self.boxes, box)[kept]
        return Instances(self.scores[kept], self.labels[kept], boxes, cut), areas[kept]


def clip(boxes: np.ndarray, box: Box) -> np.ndarray:
    """(n, 4) boxes cut to a box, in its coordinates; one outside of it has no area."""
    low, high = [box.left, box.top] * 2, [box.right, box.bottom] * 2
    return np.clip(boxes, low, high) - low


class Overlaps(NamedTuple):
    """All pairs (i, j) of instances of two views with an IoU above 0.5."""

    i: np.ndarray
    j: np.ndarray
    iou: np.ndarray


def box_overlaps(a: np.ndarray, b: np.ndarray) -> Overlaps:
    """The overlaps of (n, 4) with (m, 4) boxes."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = sides.clip(0).prod(-1)
    areas_a, areas_b = ((boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b))
    return _above_half(shared / (areas_a[:, None] + areas_b - shared))


def mask_overlaps(
    a: Sequence[Patch], areas_a: np.ndarray, b: Sequence[Patch], areas_b: np.ndarray
) -> Overlaps:
    """The overlaps of masks of one frame, given their areas."""
    # Pixels are compared only where the areas and the masks' frames allow an IoU above 0.5.
    (top_a, left_a, bottom_a, right_a), (top_b, left_b, bottom_b, right_b) = (
        np.array([p.box for p in patches]).reshape(-1, 4).T for patches in (a, b)
    )
    rows = np.minimum.outer(bottom_a, bottom_b) - np.maximum.outer(top_a, top_b)
    columns = np.minimum.outer(right_a, right_b) - np.maximum.outer(left_a, left_b)
    bound = np.minimum(rows.clip(0) * columns.clip(0), np.minimum.outer(areas_a, areas_b))
    total = np.add.outer(areas_a, areas_b)
    ious = np.zeros(total.shape)
    for i, j in np.argwhere(bound > LEAST_IOU * (total - bound)):
        shared = a[i].shared(b[j])
        ious[i, j] = shared / (total[i, j] - shared)
    return _above_half(ious)


def match(overlaps: Overlaps, allowed: np.ndarray) -> np.ndarray:
    """One-to-one matches among the allowed overlaps by descending IoU; ties by index.

    Matching above a higher threshold gives the first of the same matches, so one matching serves
    all thresholds.

    Args:
        allowed: (K,) which of the K overlaps may match.

    Returns:
        indices of the chosen overlaps, by descending IoU.
    """
    order = np.lexsort((overlaps.j, overlaps.i, -overlaps.iou))
    taken_i, taken_j, chosen = set(), set(), []
    for k in order[allowed[order]]:
        i, j = overlaps.i[k], overlaps.j[k]
        if i not in taken_i and j not in taken_j:
            taken_i.add(i)
            taken_j.add(j)
            chosen.append(k)
    return np.array(chosen, np.int64)


def _above_half(ious: np.ndarray) -> Overlaps:
    i, j = np.nonzero(ious > LEAST_IOU)
    return Overlaps(i, j, ious[i, j])
