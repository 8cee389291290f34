"""Records of several models on the same images to a report with paired differences."""

from __future__ import annotations

from collections.abc import Mapping

from aa_plugins.evaluation.task import Task
from aa_plugins.report.page import Report

Records = list[dict]


def comparison(
    title: str,
    records: Mapping[str, Records],
    task: Task,
    metrics: tuple[str, ...] | None = None,
    notes: Mapping[str, object] | None = None,
) -> Report:
    """Summaries of all models, and each model less every one before it.

    Args:
        records: of each model, by name, in the order to show.
        task: what the records are of.
        metrics: the tables' columns; the task's unless given.
        notes: how the records came about.
    """
    names = list(records)
    differences = {
        f"{later} - {earlier}": task.compare(records[earlier], records[later])
        for position, later in enumerate(names)
        for earlier in names[:position]
    }
    results = {name: task.summarise(found) for name, found in records.items()}
    columns = task.columns if metrics is None else metrics
    return Report(title, results, differences, notes or {}, metrics=columns)
