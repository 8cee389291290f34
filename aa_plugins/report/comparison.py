"""Records of several models on the same images to a report with paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aa_plugins.report.page import Report

Records = list[dict]


def comparison(
    title: str,
    records: Mapping[str, Records],
    summarise: Callable[[Records], dict],
    compare: Callable[[Records, Records], dict],
    metrics: tuple[str, ...] | None = None,
    notes: Mapping[str, object] | None = None,
) -> Report:
    """Summaries of all models, and each model less every one before it.

    Args:
        records: of each model, by name, in the order to show.
        summarise, compare: of the task, from aa_plugins.evaluation.
        metrics: the tables' columns.
        notes: how the records came about.
    """
    names = list(records)
    differences = {
        f"{later} - {earlier}": compare(records[earlier], records[later])
        for position, later in enumerate(names)
        for earlier in names[:position]
    }
    results = {name: summarise(found) for name, found in records.items()}
    return Report(title, results, differences, notes or {}, metrics=metrics)
