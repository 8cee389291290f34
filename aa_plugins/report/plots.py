"""Plots of result trees (see table.py): values, curves and surfaces, with their intervals.

Figures are at most `WIDTH` inches wide, so that a phone can show their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aa_plugins.report.elements import Plot
from aa_plugins.report.table import Table, find, is_entry, label, result_table

WIDTH = 4.8
LINE = 60  # characters of a legend across a figure
SHIFT = re.compile(r"-?[\d.]+,-?[\d.]+")
# Apart in lightness, too, and readable on white and on black (after Wong, Nature Methods 2011).
COLOURS = ("#0b84c6", "#d95f02", "#1b9e77", "#c2529a", "#b8860b", "#7b6fd0", "#c9483f", "#5f8a8b")
MARKERS = "os^Dv<>P"
INTERVALS = "Bars are 95 % intervals."


def style(index: int) -> dict[str, str]:
    """Colour and marker of the index-th variant: no two of the first 64 share both."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
    }


def result_plots(results: Mapping[str, Mapping], metrics: Sequence[str]) -> list[Plot]:
    """Every metric as a point for each variant, every branch as a curve or a surface.

    Args:
        results: tree of results.
        metrics: those that are drawn as points.
    """
    plots = [value_plot(results, metric) for metric in metrics]
    for branch in branches(results):
        keys = branch_keys(results, branch)
        if keys and all(SHIFT.fullmatch(key) for key in keys):
            plots.append(surface_plot(results, branch))
        elif keys:
            plots.append(curve_plot(results, branch))
    return plots


def value_plot(results: Mapping[str, Mapping], metric: str) -> Plot:
    """A row for each variant, with its interval as a bar."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.32 * len(results)), layout="constrained")
    panel = figure.subplots()
    for row, tree in enumerate(results.values()):
        (value,), bars = _points([find(tree, metric)])
        panel.errorbar(value, row, xerr=bars, capsize=3, markersize=6, **style(row))
    panel.set_yticks(range(len(results)), list(results))
    panel.set_ylim(len(results) - 0.5, -0.5)
    panel.set_xlabel(label(metric))
    panel.grid(axis="x", alpha=0.3)
    reading = f"One row a variant; {INTERVALS[0].lower()}{INTERVALS[1:]}"
    return Plot(label(metric), figure, reading, result_table(results, [metric]))


def curve_plot(results: Mapping[str, Mapping], branch: str) -> Plot:
    """The entries of one branch: a line for each variant where their names are numbers, else
    points, since unlike quantities have no order."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    draw_curve(figure.subplots(), results, branch)
    numeric = _numbers(branch_keys(results, branch)) is not None
    reading = f"{'One line' if numeric else 'One marker'} a variant. {INTERVALS}"
    return Plot(label(branch), figure, reading, branch_table(results, branch))


def draw_curve(panel: Axes, results: Mapping[str, Mapping], branch: str) -> None:
    """A curve per variant of the entries of a branch, whose path may have several parts."""
    keys = branch_keys(results, branch)
    numbers = _numbers(keys)
    for index, (name, tree) in enumerate(results.items()):
        entries = [(find(tree, branch) or {}).get(key) for key in keys]
        values, bars = _points(entries)
        spread = 0.5 * (index - (len(results) - 1) / 2) / max(len(results), 4)
        places = np.arange(len(keys)) + spread if numbers is None else numbers
        line = "none" if numbers is None else "-"
        panel.errorbar(
            places, values, bars, ls=line, capsize=3, markersize=5, label=name, **style(index)
        )
    if numbers is None:
        turned = {"rotation": 30, "ha": "right"} if max(map(len, keys)) > 6 else {}
        panel.set_xticks(range(len(keys)), [label(key) for key in keys], **turned)
    else:
        panel.set_xlabel(_key_name(branch))
    panel.set_ylabel("per cent")
    panel.grid(axis="y", alpha=0.3)
    legend_above(panel)


def legend_above(panel: Axes) -> None:
    """A legend above a panel of full width, in as many columns as its names leave room for."""
    handles, labels = panel.get_legend_handles_labels()
    labels = [fill(name, LINE) for name in labels]
    longest = max((len(line) for name in labels for line in name.split("\n")), default=1)
    columns = min(4, max(1, LINE // (longest + 6)))
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": "small"}
    panel.legend(handles, labels, ncols=columns, **above)


def surface_plot(results: Mapping[str, Mapping], branch: str) -> Plot:
    """Values over shifts ``"dy,dx"``: a map for each variant, all with one scale of colours."""
    keys = branch_keys(results, branch)
    shifts = {key: tuple(map(float, key.split(","))) for key in keys}
    rows, columns = (sorted({shift[axis] for shift in shifts.values()}) for axis in (0, 1))
    maps = {}
    for name, tree in results.items():
        maps[name] = np.full((len(rows), len(columns)), np.nan)
        for key, (dy, dx) in shifts.items():
            value = _value((find(tree, branch) or {}).get(key))
            maps[name][rows.index(dy), columns.index(dx)] = value
    height = 0.9 + max(1.2, 0.3 * len(rows))
    figure = Figure(figsize=(WIDTH, height * len(maps) + 0.4), layout="constrained")
    panels = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    finite = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    for panel, (name, values) in zip(panels, maps.items(), strict=True):
        image = panel.imshow(values, vmin=low, vmax=high, cmap="cividis", aspect="auto")
        panel.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
        panel.set_yticks(range(len(rows)), [f"{y:g}" for y in rows])
        panel.set_ylabel("down, pixels")
        panel.set_title(name, fontsize="medium")
        if values.size <= 64:
            _write_values(panel, values, (low + high) / 2)
    panels[-1].set_xlabel("to the right, pixels")
    figure.colorbar(image, ax=list(panels), label="per cent")
    reading = (
        "Each cell is one shift of the image; lighter is better, empty ones weren't measured. "
        "Rows and columns where it darkens are shifts at which the prediction flickers."
    )
    return Plot(label(branch), figure, reading, branch_table(results, branch))


def surface_pixels(summary: Mapping, name: str) -> np.ndarray | None:
    """A summary's values over shifts as an image (H, W, 3), uint8, for a host's own writer; None
    where they were measured at no shift."""
    keys = branch_keys({name: summary}, "shift")
    if not keys:
        return None
    figure = surface_plot({name: summary}, "shift").figure
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def branch_table(results: Mapping[str, Mapping], branch: str) -> Table:
    """A row for each entry of a branch, a column for each variant."""
    turned = {
        key: {name: (find(tree, branch) or {}).get(key) for name, tree in results.items()}
        for key in branch_keys(results, branch)
    }
    table = result_table({label(key): row for key, row in turned.items()}, list(results))
    return Table((_key_name(branch), *list(results)), table.rows)


def branches(results: Mapping[str, Mapping]) -> list[str]:
    """Paths of the branches that hold nothing but entries, in order of appearance."""
    return list(dict.fromkeys(path for tree in results.values() for path in _branches(tree, "")))


def branch_keys(results: Mapping[str, Mapping], branch: str) -> list[str]:
    """The entries of a branch, in order of appearance."""
    return list(dict.fromkeys(key for t in results.values() for key in find(t, branch) or {}))


def _branches(tree: Mapping, above: str) -> Iterator[str]:
    for name, entry in tree.items():
        if isinstance(entry, Mapping) and not is_entry(entry):
            path = f"{above}{name}"
            inner = [leaf for leaf in entry.values() if isinstance(leaf, Mapping)]
            if inner and all(map(is_entry, inner)):
                yield path
            else:
                yield from _branches(entry, f"{path}/")


def _key_name(branch: str) -> str:
    return {"margin": "margin, pixels", "bands": "band, pixels"}.get(branch, branch.split("_")[-1])


def _numbers(keys: Sequence[str]) -> list[float] | None:
    """Keys as numbers, where all are."""
    try:
        return [float(key) for key in keys]
    except ValueError:
        return None


def _value(entry: Mapping | float | None) -> float:
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return np.nan if value is None else float(value)


def _points(entries: Sequence[Mapping | float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Values, and how far their intervals reach down and up, (2, n)."""
    entries = [entry if isinstance(entry, Mapping) else {"value": entry} for entry in entries]
    values, low, high = (
        np.array([entry.get(key) for entry in entries], float) for key in ("value", "low", "high")
    )
    return values, np.nan_to_num([values - low, high - values]).clip(0)


def _write_values(panel: Axes, values: np.ndarray, middle: float) -> None:
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        colour = "#fffffe" if value < middle else "#000001"  # on the cell, whatever the page's ink
        panel.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
