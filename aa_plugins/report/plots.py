"""Plots of result trees (see table.py): values and curves with their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aa_plugins.report.table import find, is_entry, label


def value_plot(results: Mapping[str, Mapping], metrics: Sequence[str]) -> Figure:
    """A panel per metric, a point per variant with its interval as a bar."""
    figure = Figure(figsize=(max(4, 2.4 * len(metrics)), 2.8), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for position, tree in enumerate(results.values()):
            _points(panel, [position], [find(tree, metric)], "o")
        panel.set_title(label(metric), fontsize="medium")
        panel.set_xticks(range(len(results)), list(results), rotation=30, ha="right")
        panel.margins(x=0.2, y=0.2)
        panel.grid(axis="y", alpha=0.3)
    return figure


def curve_plot(results: Mapping[str, Mapping], branch: str) -> Figure:
    """One branch of the tree (agreement by shift, by margin …) as a line per variant."""
    keys = _keys(results, branch)
    figure = Figure(figsize=(max(4.5, 0.45 * len(keys) + 2.5), 3.2), layout="constrained")
    draw_curve(figure.subplots(), results, branch)
    return figure


def draw_curve(panel: Axes, results: Mapping[str, Mapping], branch: str) -> None:
    """A line per variant of the entries of a branch, whose path may have several parts."""
    keys = _keys(results, branch)
    for name, tree in results.items():
        entries = [(find(tree, branch) or {}).get(key) for key in keys]
        _points(panel, range(len(keys)), entries, "o-", name)
    panel.set_xticks(range(len(keys)), [label(key) for key in keys])
    if len(keys) > 6:
        panel.tick_params(axis="x", rotation=60)
    panel.set_title(label(branch), fontsize="medium")
    panel.grid(axis="y", alpha=0.3)
    panel.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))  # beside all curves


def branches(results: Mapping[str, Mapping]) -> list[str]:
    """The branches that hold entries, in order of appearance."""
    return list(
        dict.fromkeys(
            name
            for tree in results.values()
            for name, entry in tree.items()
            if isinstance(entry, Mapping) and not is_entry(entry)
        )
    )


def _keys(results: Mapping[str, Mapping], branch: str) -> list[str]:
    """The entries of a branch, in order of appearance."""
    return list(dict.fromkeys(key for t in results.values() for key in find(t, branch) or {}))


def _points(
    panel: Axes,
    positions: Sequence[float],
    entries: Sequence[Mapping | float | None],
    style: str,
    name: str | None = None,
) -> None:
    entries = [entry if isinstance(entry, Mapping) else {"value": entry} for entry in entries]
    values, low, high = (
        np.array([entry.get(key) for entry in entries], float) for key in ("value", "low", "high")
    )
    bars = np.nan_to_num([values - low, high - values]).clip(0)
    panel.errorbar(positions, values, bars, fmt=style, capsize=3, markersize=4, label=name)
