"""Instances of moved views: merged to what a detector says on their average, cut to one view.

The teacher's instances of all views that are the same object become one; the student is trained on
them, cut to each view, by the detector's own losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torchvision.ops import box_area, box_iou

from aa_plugins.evaluation.views import Box
from aa_plugins.training.views import MovedViews

SURE = 0.5  # least score, averaged over the views that see an object, of what is learnt
SAME = 0.5  # least intersection over union of what two views say of one object
SEEN = 0.5  # least share of a box inside a view that sees it
EDGE = 1.0  # pixels from a view's border within which a side may be that border
LEAST_SIDE = 2.0  # pixels; what a cut leaves smaller is dropped


@dataclass(frozen=True)
class Instances:
    """What a detector finds in an image of h × w pixels.

    boxes: (M, 4), left, top, right, bottom in pixels.
    scores: (M,) in [0, 1].
    labels: (M,) classes.
    masks: (M, h, w) booleans, or None of a detector without.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, chosen: torch.Tensor) -> Instances:
        masks = None if self.masks is None else self.masks[chosen]
        return Instances(self.boxes[chosen], self.scores[chosen], self.labels[chosen], masks)

    def sure(self) -> Instances:
        """Those with a score of at least SURE."""
        return self[self.scores >= SURE]

    def cut(self, part: Box) -> Instances:
        """What lies in a part of the image, in the part's coordinates."""
        boxes = _clipped(self.boxes, part)
        masks = None if self.masks is None else self.masks[(..., *part.slices)]
        cut = replace(self, boxes=boxes - _corner(part, boxes), masks=masks)
        kept = ((boxes[:, 2:] - boxes[:, :2]) >= LEAST_SIDE).all(1)
        return cut[kept if masks is None else kept & masks.flatten(1).any(1)]

    def placed(self, part: Box, size: tuple[int, int]) -> Instances:
        """Instances of a part, in the coordinates of the whole image of `size` (H, W)."""
        masks = None
        if self.masks is not None:
            masks = self.masks.new_zeros(len(self), *size)
            masks[(..., *part.slices)] = self.masks
        return replace(self, boxes=self.boxes + _corner(part, self.boxes), masks=masks)


class Detector(Protocol):
    """A detector of any host, as a module that gives instances, and its losses."""

    def __call__(self, images: torch.Tensor) -> list[Instances]:
        """Instances in images (N, 3, h, w), in eval mode."""

    def losses(self, images: torch.Tensor, targets: Sequence[Instances]) -> torch.Tensor:
        """The sum of the detector's own losses, norms and dropout left in their mode."""


class Detections:
    """The objective of detectors: their own losses on the merged instances of all views.

    Agreements are panoptic qualities of boxes, or of masks where there are some: the sum of matched
    intersections over unions, over half of the number of instances of both (Kirillov et al., CVPR
    2019), of instances with a score of at least one half.
    """

    def target(self, teacher: Detector, window: torch.Tensor, moved: MovedViews) -> Any:
        return merged_instances(teacher, window, moved)

    def loss(
        self,
        student: Detector,
        view: torch.Tensor,
        target: Any,
        moved: MovedViews,
        number: int,
    ) -> torch.Tensor:
        crop = moved.views[number].crop
        return student.losses(view, [one.cut(crop) for one in target])

    def agreement(
        self, network: nn.Module, teacher: nn.Module, windows: torch.Tensor, moved: MovedViews
    ) -> Sequence[float]:
        target = self.target(teacher, windows, moved)
        instances = merged_instances(teacher, windows, moved)
        average = [one.cut(moved.overlap) for one in instances]
        rows, own = [], []
        for number, view in enumerate(moved.inputs(windows)):
            overlap = moved.views[number].box(moved.overlap)
            found, theirs = (
                [one.sure().cut(overlap) for one in net(view)] for net in (network, teacher)
            )
            loss = float(self.loss(network, view, target, moved, number))
            rows.append([loss, _mean_quality(found, average), _mean_quality(found, theirs)])
            own.append(found)
        following = own[1:] + own[:1]
        itself = [_mean_quality(a, b) for a, b in zip(own, following)]
        return [*np.mean(rows, axis=0), float(np.mean(itself))]


def merged_instances(teacher: Detector, window: torch.Tensor, moved: MovedViews) -> list[Instances]:
    """What a detector says of windows (N, 3, H, W) on the average of their views."""
    found = [teacher(view) for view in moved.inputs(window)]
    size = tuple(window.shape[-2:])
    return [merged([views[n] for views in found], moved, size) for n in range(len(window))]


def merged(found: Sequence[Instances], moved: MovedViews, size: tuple[int, int]) -> Instances:
    """Instances of all views of a window to those that they say on average.

    Those of one class that overlap by half are one object. Its score is the mean over the views
    that see half of it, 0 where a view has missed it, and objects with less than SURE are dropped.
    Each side of its box is the mean over the views in which it isn't the view's own border; its
    mask, what most of the views that see a pixel and have found it say.

    Args:
        found: of each view, in the view's coordinates.
        moved: the views.
        size: (H, W) of the window.
    """
    crops = [view.crop for view in moved.views]
    placed = [one.placed(crop, size) for one, crop in zip(found, crops)]
    order = sorted(
        ((view, index) for view, one in enumerate(placed) for index in range(len(one))),
        key=lambda place: -float(placed[place[0]].scores[place[1]]),
    )
    taken: set[tuple[int, int]] = set()
    objects = []
    for place in order:
        if place in taken:
            continue
        members, seers = _same_object(place, placed, crops, taken)
        taken |= members
        score = sum(placed[v].scores[i] for v, i in members) / seers
        if score >= SURE:
            objects.append(_averaged(sorted(members), placed, crops, score))
    return _stacked(objects, placed[0])


def _same_object(
    place: tuple[int, int],
    placed: Sequence[Instances],
    crops: Sequence[Box],
    taken: set[tuple[int, int]],
) -> tuple[set[tuple[int, int]], int]:
    """(view, index) of what views say of one object, and the number of views that see it."""
    first, index = place
    box, label = placed[first].boxes[index : index + 1], placed[first].labels[index]
    members, seers = {place}, 1
    for view, (one, crop) in enumerate(zip(placed, crops)):
        if view == first or box_area(_clipped(box, crop)) < SEEN * box_area(box):
            continue
        seers += 1
        both = crop.intersection(crops[first])
        overlaps = box_iou(_clipped(box, both), _clipped(one.boxes, both))[0]
        free = [(view, i) not in taken for i in range(len(one))]
        overlaps = overlaps * (one.labels == label) * torch.tensor(free, device=box.device)
        if len(one) and overlaps.max() >= SAME:
            members.add((view, int(overlaps.argmax())))
    return members, seers


def _averaged(
    members: Sequence[tuple[int, int]],
    placed: Sequence[Instances],
    crops: Sequence[Box],
    score: torch.Tensor,
) -> Instances:
    """One object of all its members, (1, …) of each field."""
    boxes = torch.stack([placed[view].boxes[index] for view, index in members])
    borders = torch.stack([_border(crops[view], boxes) for view, _ in members])
    inside = ((boxes - borders).abs() > EDGE).to(boxes)
    outermost = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])
    sides = (boxes * inside).sum(0) / inside.sum(0)
    box = torch.where(inside.any(0), sides, outermost)
    first_view, first = members[0]
    masks = None
    if placed[first_view].masks is not None:
        masks = torch.stack([placed[view].masks[index] for view, index in members])
        seen = torch.zeros_like(masks, dtype=torch.float32)
        for number, (view, _) in enumerate(members):
            seen[(number, *crops[view].slices)] = 1
        masks = (masks.sum(0) >= 0.5 * seen.sum(0).clamp_min(1))[None]
    labels = placed[first_view].labels[first : first + 1]
    return Instances(box[None], score.reshape(1), labels, masks)


def _stacked(objects: Sequence[Instances], like: Instances) -> Instances:
    none = like[torch.zeros(len(like), dtype=torch.bool, device=like.boxes.device)]
    rows = [none, *objects]
    masks = None if none.masks is None else torch.cat([row.masks for row in rows])
    fields = (torch.cat([getattr(row, n) for row in rows]) for n in ("boxes", "scores", "labels"))
    return Instances(*fields, masks)


def _mean_quality(one: Sequence[Instances], other: Sequence[Instances]) -> float:
    return float(np.mean([quality(a, b) for a, b in zip(one, other)]))


def quality(one: Instances, other: Instances) -> float:
    """Panoptic quality in [0, 1] of two sets of instances; 1 where both are empty."""
    if not len(one) and not len(other):
        return 1.0
    overlaps = _overlaps(one, other) * (one.labels[:, None] == other.labels)
    matched = torch.where(overlaps >= SAME, overlaps, 0).cpu().numpy()
    rows, columns = linear_sum_assignment(matched, maximize=True)
    return float(matched[rows, columns].sum() / ((len(one) + len(other)) / 2))


def _overlaps(one: Instances, other: Instances) -> torch.Tensor:
    """Intersections over unions, (M, M')."""
    if one.masks is None:
        return box_iou(one.boxes, other.boxes)
    a, b = (masks.flatten(1).float() for masks in (one.masks, other.masks))
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1) - both).clamp_min(1)


def _border(box: Box, like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor([box.left, box.top, box.right, box.bottom])


def _corner(box: Box, like: torch.Tensor) -> torch.Tensor:
    return like.new_tensor([box.left, box.top, box.left, box.top])


def _clipped(boxes: torch.Tensor, part: Box) -> torch.Tensor:
    left, top, right, bottom = _border(part, boxes)
    return torch.stack(
        [
            boxes[:, 0].clamp(left, right),
            boxes[:, 1].clamp(top, bottom),
            boxes[:, 2].clamp(left, right),
            boxes[:, 3].clamp(top, bottom),
        ],
        dim=1,
    )
