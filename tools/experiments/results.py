"""Records of an experiment's runs, and what they say together: means over seeds, and verdicts.

A number is the mean over seeds, its interval a bootstrap of that mean over images, or over blocks
of frames where images are those of a video: how it would differ on other images. From three seeds
on a second interval resamples the seeds, too: how it would differ with other seeds and images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aa_plugins.evaluation.bootstrap import Statistic, average, differences, intervals
from aa_plugins.evaluation.records import paired_records, read_records
from aa_plugins.evaluation.resampling import Units, units_of
from aa_plugins.evaluation.sequences import placed
from aa_plugins.report.table import find
from experiments.plan import Claim, Experiment
from experiments.tasks import TASKS

SEEDS_FOR_A_VERDICT = 3


@dataclass
class Results:
    """What is there of an experiment.

    Attributes:
        experiment: the declaration.
        records: variant to seed to the run's record.json.
        images: variant to seed to the records of its images.
    """

    experiment: Experiment
    records: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    images: dict[str, dict[int, list[dict]]] = field(default_factory=dict)

    @classmethod
    def read(cls, experiment: Experiment, folder: str | Path) -> Results:
        """Read the finished runs of an experiment in a folder of results."""
        results = cls(experiment)
        for run in experiment.runs():
            place = Path(folder) / run.home / run.name
            if (place / "record.json").is_file():
                record = json.loads((place / "record.json").read_text())
                results.records.setdefault(run.variant, {})[run.seed] = record
                images = placed(read_records(place)[1], experiment.sequences)
                results.images.setdefault(run.variant, {})[run.seed] = images
        return results

    def variants(self) -> list[str]:
        """Variants with a finished run, as declared."""
        return [name for name in self.experiment.variants if name in self.records]

    def seeds(self, *variants: str) -> list[int]:
        """Seeds that all of these variants have."""
        found = [set(self.records.get(variant, ())) for variant in variants]
        return sorted(set.intersection(*found))

    def summary(self, variant: str, metrics: Sequence[str]) -> dict:
        """Means over a variant's seeds with intervals."""
        trees = self._trees(variant, self.seeds(variant), metrics)
        return intervals(average(trees), units=self.units())

    def difference(self, later: str, earlier: str, metrics: Sequence[str]) -> dict:
        """Means over common seeds of later - earlier, with paired intervals."""
        seeds = self.seeds(later, earlier)
        for seed in seeds:
            paired_records(self.images[earlier][seed], self.images[later][seed])
        trees = [average(self._trees(v, seeds, metrics)) for v in (earlier, later)]
        return differences(*trees, units=self.units())

    def units(self) -> Units:
        """What is resampled: images, or blocks of frames."""
        first = next(iter(self.images.values()))
        return units_of(next(iter(first.values())), self.experiment.block)

    def values(self, variant: str, metric: str) -> dict[int, float | None]:
        """Seed to what its run measured."""
        seeds = sorted(self.records[variant])
        found = [find(tree, metric) for tree in self._trees(variant, seeds, [metric])]
        return {seed: None if leaf is None else _number(leaf) for seed, leaf in zip(seeds, found)}

    def gaps(self, later: str, earlier: str, metric: str) -> dict[int, float]:
        """Common seed to later - earlier."""
        a, b = self.values(earlier, metric), self.values(later, metric)
        return {seed: b[seed] - a[seed] for seed in self.seeds(later, earlier)}

    def verdict(self, claim: Claim) -> str:
        """ "holds", "doesn't" or "can't tell", and on what.

        A comparison holds where the interval of the mean over at least three seeds is on the
        claimed side of zero and so is every seed; it doesn't where all of that is on the other
        side. "Zero" holds where the interval of three seeds or more contains zero, and doesn't
        where it is off zero and every seed is on the same side. The interval over seeds, too, is
        said beside.
        """
        of = [claim.of] if claim.against is None else [claim.of, claim.against]
        if not all(variant in self.records for variant in of) or not self.seeds(*of):
            return "can't tell: not run"
        if claim.against is None:
            entry = find(self.summary(claim.of, [claim.metric]), claim.metric)
            singles, middle = list(self.values(claim.of, claim.metric).values()), entry["value"]
        else:
            tree = self.difference(claim.of, claim.against, [claim.metric])
            entry = find(tree, claim.metric)
            singles = list(self.gaps(claim.of, claim.against, claim.metric).values())
            middle = entry["difference"]
        seeds = len(singles)
        low, high = entry["low"], entry["high"]
        over_seeds = entry.get("seeds_low"), entry.get("seeds_high")
        beside = "" if None in over_seeds else " ⟨{:+.2f}, {:+.2f}⟩".format(*over_seeds)
        said = f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]{beside}, {seeds} seed{'s' * (seeds > 1)}"
        if seeds < SEEDS_FOR_A_VERDICT:
            return f"can't tell yet: {said}"
        above = low > 0 and min(singles) > 0
        below = high < 0 and max(singles) < 0
        holds, fails = {
            "higher": (above, below),
            "lower": (below, above),
            "zero": (low <= 0 <= high, above or below),
        }[claim.direction]
        verdict = "holds" if holds else "doesn't" if fails else "can't tell"
        if claim.direction == "zero" and fails:
            verdict += ", more" if above else ", less"
        return f"{verdict}: {said}"

    def _trees(self, variant: str, seeds: Sequence[int], metrics: Sequence[str]) -> list[dict]:
        task = TASKS[self.experiment.task]
        return [_pick(task.statistics(self.images[variant][seed]), metrics) for seed in seeds]


def _number(leaf: Statistic) -> float | None:
    value = float(leaf.estimate(np.ones((1, leaf.images)))[0])
    return value if np.isfinite(value) else None


def _pick(tree: dict, metrics: Sequence[str]) -> dict:
    """The leaves and branches of a tree at these paths."""
    picked: dict = {}
    for metric in metrics:
        found, place = find(tree, metric), picked
        if found is None:
            continue
        *branches, leaf = metric.split("/")
        for branch in branches:
            place = place.setdefault(branch, {})
        place[leaf] = found
    return picked
