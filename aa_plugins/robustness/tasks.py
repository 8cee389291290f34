"""What becomes of the records of conditions: for each analysis of each kind of prediction a task.

Names of the numbers are those of the kind of prediction: its measure of being right, and that of
being consistent under shifts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from aa_plugins.evaluation.bootstrap import Statistic, intervals
from aa_plugins.evaluation.combined import Combined, mean_of, percent_of
from aa_plugins.evaluation.records import paired_records
from aa_plugins.evaluation.resampling import units_of
from aa_plugins.evaluation.task import Records, Task
from aa_plugins.evaluation.tasks import TASKS
from aa_plugins.robustness.conditions import CLEAN

# Of each kind of prediction the paths of its numbers, by their name here: right, then consistent.
MEASURES = {
    "classification": {"accuracy": "accuracy", "agreement": "agreement"},
    "semantic": {"mIoU": "mIoU", "mASSC": "mASSC"},
    "instance": {
        "mask_AP": "mask/AP/reference",
        "mask_mAISC": "mask/mAISC",
        "box_AP": "box/AP/reference",
        "box_mAISC": "box/mAISC",
    },
}
RIGHT = ("accuracy", "mIoU", "mask_AP", "box_AP")
Measured = dict[str, dict[str, Statistic]]  # of each condition, by name of the number


def measured(kind: str, records: Records) -> Measured:
    """Every number of every condition."""
    found: Measured = {}
    for condition in records[0]["conditions"]:
        tree = TASKS[kind].statistics([record["conditions"][condition] for record in records])
        leaves = {name: _leaf(tree, path) for name, path in MEASURES[kind].items()}
        found[condition] = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    return found


def quality(kind: str, record: dict) -> float:
    """How right an image's predictions are, in percent: infinite where there is nothing to be
    right about, as in a view without objects."""
    tree = TASKS[kind].statistics([record])
    leaves = (_leaf(tree, path) for name, path in MEASURES[kind].items() if name in RIGHT)
    found = next((leaf for leaf in leaves if leaf is not None), None)
    value = np.nan if found is None else float(found.estimate(np.ones((1, 1)))[0])
    return value if np.isfinite(value) else np.inf


def corruption_statistics(kind: str, records: Records) -> dict:
    """Sorted records to the tree of statistics, in percent; NUMBER is one of the kind's.

    ===================== ===================================================================
    ``clean``              each NUMBER of the images as they are
    ``mean``               each NUMBER, its mean over corruptions of the mean over severities
    ``kept``               each NUMBER, ``mean`` in percent of ``clean``
    NUMBER                 its mean over severities, for every corruption
    ``severity_NUMBER``    its mean over corruptions, for every severity
    ===================== ===================================================================
    """
    found = measured(kind, records)
    clean = found.pop(CLEAN)
    families, levels = _axes(found)
    tree: dict = {"clean": clean, "mean": {}, "kept": {}}
    for name in clean:
        by_family = {f: mean_of(*(found[f"{f}/{s}"][name] for s in levels)) for f in families}
        by_level = {s: mean_of(*(found[f"{f}/{s}"][name] for f in families)) for s in levels}
        tree["mean"][name] = mean_of(*by_family.values())
        tree["kept"][name] = percent_of(tree["mean"][name], clean[name])
        tree[name], tree[f"severity_{name}"] = by_family, by_level
    return tree


def corruption_errors(kind: str, records: Records, reference: Records) -> dict:
    """A network's errors under corruption over those of a reference network on the same images,
    with intervals (Hendrycks & Dietterich, section 4.2; theirs is AlexNet): ``mCE`` and
    ``relative_mCE`` in percent, and ``CE`` of each corruption. An error is 100 less accuracy, mIoU
    or AP.

    Of a corruption: the sum over severities of the network's errors over that of the reference's;
    relative, of the errors' growth over those on clean images. mCE is the mean over corruptions.

    Raises:
        ValueError: where the records are of different images or conditions.
    """
    reference, records = paired_records(reference, records)
    ours, theirs = measured(kind, records), measured(kind, reference)
    if list(ours) != list(theirs):
        raise ValueError("the two networks were measured under different conditions")
    name = next((name for name in RIGHT if name in ours[CLEAN]), None)
    if name is None:
        raise ValueError("the images have no truth, so there are no errors: give labels")
    families, levels = _axes({key: value for key, value in ours.items() if key != CLEAN})
    errors: dict = {}
    grown: dict = {}
    for family in families:
        parts = [side[f"{family}/{s}"][name] for side in (ours, theirs) for s in levels]
        errors[family] = Combined(_error_ratio, *parts)
        clean = (ours[CLEAN][name], theirs[CLEAN][name])
        grown[family] = Combined(_growth_ratio, *clean, *parts)
    means = {"mCE": mean_of(*errors.values()), "relative_mCE": mean_of(*grown.values())}
    return intervals({**means, "CE": errors}, units=units_of(records))


def band_statistics(kind: str, records: Records) -> dict:
    """Sorted records to the tree of statistics: ``clean``, and for each number of the kind its
    value without each band, from the lowest, "0", on."""
    found = measured(kind, records)
    clean = found.pop(CLEAN)
    _, levels = _axes(found)
    curves = {name: {level: found[f"band/{level}"][name] for level in levels} for name in clean}
    return {"clean": clean, **curves}


def shift_statistics(kind: str, records: Records) -> dict:
    """Sorted records to the tree of statistics: ``clean``, and the measure of being right of the
    worst view within each radius in pixels."""
    found = measured(kind, records)
    clean = {name: leaf for name, leaf in found.pop(CLEAN).items() if name in RIGHT}
    _, radii = _axes(found)
    curves = {name: {radius: found[f"within/{radius}"][name] for radius in radii} for name in clean}
    return {"clean": clean, **curves}


def _error_ratio(*accuracies: np.ndarray) -> np.ndarray:
    ours, theirs = np.split(100 - np.array(accuracies), 2)
    return 100 * ours.sum(0) / theirs.sum(0)


def _growth_ratio(
    clean: np.ndarray, clean_reference: np.ndarray, *accuracies: np.ndarray
) -> np.ndarray:
    ours, theirs = np.split(np.array(accuracies), 2)
    return 100 * (clean - ours).sum(0) / (clean_reference - theirs).sum(0)


def _axes(names: dict) -> tuple[list[str], list[str]]:
    """Families and levels of conditions in order."""
    parts = [name.split("/") for name in names]
    return tuple(list(dict.fromkeys(column)) for column in zip(*parts))


def _leaf(tree: dict, path: str) -> Statistic | None:
    for name in path.split("/"):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _constant(kind: str, records: Records) -> dict[str, str]:
    """What is said of nearly constant predictors, beside the consistency on clean images."""
    found = TASKS[kind].constant([record["conditions"][CLEAN] for record in records])
    names = {path: f"clean/{name}" for name, path in MEASURES[kind].items()}
    return {names[path]: remark for path, remark in found.items() if path in names}


def _task(kind: str, analysis: str, statistics: Callable, branches: tuple[str, ...]) -> Task:
    columns = tuple(
        f"{branch}/{name}"
        for name in MEASURES[kind]
        for branch in branches
        if name in RIGHT or analysis != "shifts"
    )
    return Task(
        name=f"{kind}/{analysis}",
        scorer=TASKS[kind].scorer,
        statistics=partial(statistics, kind),
        columns=columns,
        constant=partial(_constant, kind),
    )


ANALYSES: dict[str, Task] = {
    task.name: task
    for kind in MEASURES
    for task in (
        _task(kind, "corruptions", corruption_statistics, ("clean", "mean", "kept")),
        _task(kind, "bands", band_statistics, ("clean",)),
        _task(kind, "shifts", shift_statistics, ("clean",)),
    )
}
