"""The phase average of a detector's heads: what they say of the same boxes at every phase.

The teacher proposes boxes on all views; on each view its heads are asked about all of them, moved
along, and their answers are averaged. The student learns to give that average at every single
phase, and to propose what the teacher does on the same view. Labels stay soft: a student that
computes what its teacher does is near the target from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import binary_cross_entropy, kl_div, log_softmax, smooth_l1_loss

from aa_plugins.training.instances import Detections
from aa_plugins.training.views import MovedViews

BOXES = 32  # of an image, at most


@dataclass(frozen=True)
class Answers:
    """What heads say of M boxes.

    scores: (M, C + 1), the last of the background: logits, or probabilities once averaged.
    corrections: (M, C, 4), or (M, 1, 4) of heads that know no classes.
    masks: (M, C or 1, h, w), likewise; None of a detector without.
    """

    scores: torch.Tensor
    corrections: torch.Tensor
    masks: torch.Tensor | None


class TwoStage(Protocol):
    """A detector with heads for boxes, as a module that also finds instances."""

    def features(self, images: torch.Tensor) -> Any:
        """Maps of images (N, 3, h, w)."""

    def proposals(self, features: Any) -> list[torch.Tensor]:
        """Boxes (P, 4) of each image, the surest first."""

    def objectness(self, features: Any) -> torch.Tensor:
        """(N, A) logits of all anchors."""

    def answers(self, features: Any, boxes: Sequence[torch.Tensor]) -> Answers:
        """What the heads say of boxes (M, 4) of each image, one image after the other."""


class Heads(Detections):
    """The objective of detectors with heads for boxes."""

    def target(self, teacher: TwoStage, window: torch.Tensor, moved: MovedViews) -> Any:
        seen = [teacher.features(view) for view in moved.inputs(window)]
        proposed = [teacher.proposals(features) for features in seen]
        boxes = [
            _shared([views[n] for views in proposed], moved).to(window.device)
            for n in range(len(window))
        ]
        answers = [
            teacher.answers(features, _on_view(boxes, moved, number))
            for number, features in enumerate(seen)
        ]
        average = Answers(
            torch.stack([one.scores.float().softmax(1) for one in answers]).mean(0),
            torch.stack([one.corrections.float() for one in answers]).mean(0),
            None
            if answers[0].masks is None
            else torch.stack([one.masks.float().sigmoid() for one in answers]).mean(0),
        )
        return boxes, average, [teacher.objectness(f).float().sigmoid() for f in seen]

    def loss(
        self, student: TwoStage, view: torch.Tensor, target: Any, moved: MovedViews, number: int
    ) -> torch.Tensor:
        boxes, average, objectness = target
        features = student.features(view)
        said = student.objectness(features).float().sigmoid()
        loss = _bernoulli(said, objectness[number]).mean()
        if not sum(map(len, boxes)):
            return loss
        found = student.answers(features, _on_view(boxes, moved, number))
        logs = log_softmax(found.scores.float(), 1)
        loss = loss + kl_div(logs, average.scores, reduction="none").sum(1).mean()
        # Corrections and masks matter as far as a box holds an object, of each class by itself.
        weights = average.scores[:, :-1]
        apart = smooth_l1_loss(
            found.corrections.float(), average.corrections, reduction="none", beta=1.0
        )
        loss = loss + _weighted(apart.mean(-1), weights)
        if average.masks is not None:
            apart = _bernoulli(found.masks.float().sigmoid(), average.masks).mean((-2, -1))
            loss = loss + _weighted(apart, weights)
        return loss


def _shared(proposed: Sequence[torch.Tensor], moved: MovedViews) -> torch.Tensor:
    """(M, 4) boxes in the window's coordinates, those of all views in turn, that lie in all."""
    placed = []
    for boxes, view in zip(proposed, moved.views):
        corner = boxes.new_tensor([view.crop.left, view.crop.top] * 2)
        placed.append((boxes + corner)[:BOXES])
    rows = max(map(len, placed))
    turns = torch.cat(
        [placed[0][:0], *(one[row : row + 1] for row in range(rows) for one in placed)]
    )
    left, top = turns[:, 0] >= moved.overlap.left, turns[:, 1] >= moved.overlap.top
    right, bottom = turns[:, 2] <= moved.overlap.right, turns[:, 3] <= moved.overlap.bottom
    return turns[left & top & right & bottom][:BOXES]


def _on_view(boxes: Sequence[torch.Tensor], moved: MovedViews, number: int) -> list[torch.Tensor]:
    crop = moved.views[number].crop
    return [one - one.new_tensor([crop.left, crop.top] * 2) for one in boxes]


def _bernoulli(said: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """KL of probabilities, elementwise, at least 0."""
    least = 1e-6
    said, wanted = said.clamp(least, 1 - least), wanted.clamp(least, 1 - least)
    known = binary_cross_entropy(wanted, wanted, reduction="none")
    return binary_cross_entropy(said, wanted, reduction="none") - known


def _weighted(apart: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over boxes and classes by their probability; (M, C) or (M, 1) for all classes."""
    if apart.shape[1] == 1:
        weights = weights.sum(1, keepdim=True)
    return (apart * weights).sum() / weights.sum().clamp_min(1e-6)
