"""What a task is: how predictions are scored, and what becomes of the records.

A new task is a file with such an object, and a row in :data:`aa_plugins.evaluation.tasks.TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aa_plugins.evaluation.bootstrap import RESAMPLES, differences, intervals
from aa_plugins.evaluation.records import paired_records, sorted_records
from aa_plugins.evaluation.resampling import units_of

Records = list[dict]


@dataclass(frozen=True)
class Task:
    """One kind of prediction.

    Args:
        name: in headers of records and on command lines.
        scorer: a class; its instances' ``score(plan, predictions, ground_truth)`` makes the record
            of an image.
        statistics: sorted records to the tree of what :meth:`summarise` takes intervals of.
        columns: the paths of a table's columns in that tree.
        constant: where predictions hardly vary, what is constant and the path of the number beside
            which it is said.
        counts: of what was left out of numbers, by name.
    """

    name: str
    scorer: type
    statistics: Callable[[Records], dict]
    columns: tuple[str, ...]
    constant: Callable[[Records], dict[str, str]]
    counts: Callable[[Records], dict[str, int]] | None = None

    def summarise(
        self,
        records: Records,
        resamples: int = RESAMPLES,
        seed: int = 0,
        block: int | None = None,
    ) -> dict:
        """Numbers with 95 % intervals, each ``{"value", "low", "high", "images", "unit"}``; see the
        task's ``statistics`` for what they are. ``counts`` says what they rest on.

        A number that a nearly constant predictor would reach too has a ``remark``, where the
        predictions are nearly constant; so has an aliasing loss that isn't defined, as all images
        are too small for the margin.

        Args:
            block: frames that blocks have at least, where images are frames of sequences; see
                :mod:`aa_plugins.evaluation.resampling`.

        Raises:
            ValueError: no records.
        """
        records = sorted_records(records)
        tree = intervals(self.statistics(records), resamples, seed, units_of(records, block))
        for path, remark in self.constant(records).items():
            *branches, leaf = path.split("/")
            place = tree
            for branch in branches:
                place = place.get(branch, {})
            if leaf in place:
                place[leaf]["remark"] = remark
        for place in (tree, tree.get("mask", {}), tree.get("box", {})):
            loss = place.get("aliasing_loss", {})
            if loss.get("value", 0) is None and all(r.get("margin", 0) is None for r in records):
                loss["remark"] = "images too small for the margin"
        return {**tree, "counts": self.counts(records)} if self.counts else tree

    def compare(
        self,
        records_a: Records,
        records_b: Records,
        resamples: int = RESAMPLES,
        seed: int = 0,
        block: int | None = None,
    ) -> dict:
        """Paired differences b - a on the same images, in the layout of :meth:`summarise`, each
        ``{"a", "b", "difference", "low", "high", "images", "unit"}``.

        Raises:
            ValueError: the images or the protocols differ; so losses to aliasing are compared at
                one stride S alone.
        """
        a, b = paired_records(records_a, records_b)
        trees = (self.statistics(records) for records in (a, b))
        return differences(*trees, resamples, seed, units_of(a, block))
