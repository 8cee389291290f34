"""Shift consistency of classification: how often the top-1 class survives a shift.

Agreement of two random crops is the consistency of Zhang (ICML 2019); the share of images that are
right under every shift up to a radius is an adversarial accuracy by radius.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from aa_plugins.evaluation.agreement import by_shift, controls, in_mean, mean, record_head
from aa_plugins.evaluation.bootstrap import Mean
from aa_plugins.evaluation.checks import require_finite
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.task import Task
from aa_plugins.evaluation.views import View, ViewPlan

NEARLY_ALL = 0.99  # the share of one class above which a predictor is called nearly constant


class ClassificationConsistency:
    """Scores the predictions on the views of one image after the other; keeps nothing.

    Args:
        protocol: that the plans come from.
        num_classes: labels run from 0 to ``num_classes`` - 1.
    """

    def __init__(self, protocol: Protocol, num_classes: int):
        self.protocol = protocol
        self.num_classes = num_classes

    def score(
        self,
        plan: ViewPlan,
        predictions: Iterable[torch.Tensor | np.ndarray | int],
        label: int | None = None,
    ) -> dict:
        """The record of one image, of JSON types.

        Args:
            plan: the image's plan.
            predictions: one a view, in the plan's order: scores (C,), floating, or a class.
            label: the right class.

        Raises:
            ValueError: scores that aren't finite or of a wrong size or number, a class outside of
                the classes. The message names the image.
        """
        if label is not None:
            self._class(plan, int(label), "label")
        pairs: list[list[int]] = [[]] * len(plan.pairs)
        classes = plan.compared(predictions, lambda _, values: self._top(plan, values))
        reference = View(plan.crop)
        for number, _, a, b in classes:
            pairs[number] = [a, b]
        return {
            **record_head(plan, self.protocol),
            "classes": pairs,
            "label": None if label is None else int(label),
            "from_reference": [plan.views[pair.a] == reference for pair in plan.pairs],
        }

    def _top(self, plan: ViewPlan, values: torch.Tensor | np.ndarray | int) -> int:
        values = torch.as_tensor(values).detach().cpu()
        if not values.is_floating_point() and values.numel() == 1:
            return self._class(plan, int(values), "prediction")
        if tuple(values.shape) != (self.num_classes,):
            raise ValueError(
                f"image {plan.image_id!r}: a prediction has shape {tuple(values.shape)}; give "
                f"scores of shape {(self.num_classes,)} or a class"
            )
        require_finite(values, plan.image_id)
        return int(values.argmax())

    def _class(self, plan: ViewPlan, value: int, what: str) -> int:
        if not 0 <= value < self.num_classes:
            raise ValueError(
                f"image {plan.image_id!r}: {what} {value} is outside of the classes 0 to "
                f"{self.num_classes - 1}; map the dataset's labels to classes"
            )
        return value


def statistics(records: list[dict]) -> dict:
    """Sorted records to the tree of statistics, in percent. What needs a label is left out without.

    ========================= ===============================================================
    ``accuracy``               of all views in the mean
    ``agreement``              share of pairs with equal top-1 class
    ``agreement_on_correct``   the same among the pairs of which one view at least is right
    ``unanimous_within``       share of images whose class is that of the reference under every
                               shift up to a radius max(\\|dy\\|, \\|dx\\|) in pixels
    ``correct_within``         the same, and the class is right
    ``shift``, ``controls``, ``aliasing_loss``: as for semantic segmentation, of whole views, which
    keep no margin from borders
    ========================= ===============================================================
    """
    labelled = all(record["label"] is not None for record in records)
    agreements = [[float(a == b) for a, b in record["classes"]] for record in records]
    tree: dict = {}
    if labelled:
        tree["accuracy"] = Mean([_accuracy(record) for record in records], 100)
    tree["agreement"] = Mean(
        [mean([values[i] for i in in_mean(r)]) for r, values in zip(records, agreements)], 100
    )
    if labelled:
        tree["agreement_on_correct"] = Mean(
            [
                mean([values[i] for i in in_mean(r) if r["label"] in r["classes"][i]])
                for r, values in zip(records, agreements)
            ],
            100,
        )
    tree["unanimous_within"] = _within(records, correct=False)
    if labelled:
        tree["correct_within"] = _within(records, correct=True)
    around = controls(records, agreements, borders=False)
    return {**tree, "shift": by_shift(records, agreements), **around}


def constant(records: list[dict]) -> dict[str, str]:
    """Whether nearly all images are given one class, though they are of several."""
    predicted = np.bincount([c for record in records for pair in record["classes"] for c in pair])
    share = float(predicted.max() / max(predicted.sum(), 1))
    if share < NEARLY_ALL or len(records) < 2:
        return {}
    labels = {record["label"] for record in records}
    if len(labels) == 1 and None not in labels:
        return {}
    return {"agreement": f"nearly constant: {100 * share:.1f} % of the views are one class"}


def _accuracy(record: dict) -> float | None:
    """Over the two views of each mean pair."""
    return mean(
        [float(c == record["label"]) for i in in_mean(record) for c in record["classes"][i]]
    )


def _within(records: list[dict], correct: bool) -> dict[str, Mean]:
    """For each radius among the shifts, the share of images without a change up to it."""

    def shifts(record: dict) -> list[tuple[float, int]]:
        """Distance and number of the listed shifts away from the reference."""
        return [
            (max(map(abs, shift)), number)
            for number, shift in enumerate(record["shifts"])
            if record["from_reference"][number] and record["roles"][number] in ("mean", "multiple")
        ]

    def holds(record: dict, radius: float) -> float | None:
        inside = [record["classes"][i] for distance, i in shifts(record) if distance <= radius]
        right = record["label"] if correct else None
        return float(all(a == b and right in (None, a) for a, b in inside)) if inside else None

    radii = sorted({distance for record in records for distance, _ in shifts(record)})
    return {
        f"{radius:g}": Mean([holds(record, radius) for record in records], 100) for radius in radii
    }


CLASSIFICATION = Task(
    name="classification",
    scorer=ClassificationConsistency,
    statistics=statistics,
    columns=("accuracy", "agreement", "controls/same_phase", "aliasing_loss"),
    constant=constant,
)
