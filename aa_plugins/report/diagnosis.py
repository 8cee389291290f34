"""Plots of where a network aliases and flickers, place by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aa_plugins.diagnostics.aliasing import CLASSES
from aa_plugins.diagnostics.stages import Step
from aa_plugins.diagnostics.survey import PlaceAliasing
from aa_plugins.report.elements import Plot
from aa_plugins.report.plots import WIDTH, legend_above, style
from aa_plugins.report.table import Table

CLASS_COLOURS = dict(tangled="#c9483f", aliased="#e0a030", non_aliased="#1b9e77", no_pass="#b9bec6")
ROW = 0.42  # inches


def site_name(name: str) -> str:
    """A place as the network's own module is called, without the filter's part."""
    return name.removesuffix(".prefilter").removesuffix(".postfilter")


def class_plot(name: str, rows: Sequence[PlaceAliasing]) -> Plot:
    """Of one network: how each place's spectrum falls into the four classes."""
    shares = [100 * row.after.mean(0).numpy() for row in rows]
    figure, panel = _rows([site_name(row.name) for row in rows])
    left = np.zeros(len(rows))
    for index, class_ in enumerate(CLASSES):
        widths = np.array([share[index] for share in shares])
        label = class_.replace("_", " ")
        positions = np.arange(len(rows))
        panel.barh(positions, widths, 0.35, left, color=CLASS_COLOURS[class_], label=label)
        left += widths
    panel.set_xlim(0, 100)
    panel.set_xlabel("per cent of the bins of the subsampled spectrum")
    legend_above(panel)
    cells = [(site_name(r.name), *(f"{v:.1f}" for v in s)) for r, s in zip(rows, shares)]
    return Plot(
        f"{name}: what each subsampling mixes up",
        figure,
        "Red: frequencies that fall onto others and can't be told apart any more; yellow: moved "
        "to another frequency; green: kept; grey: too weak to matter (20 dB).",
        Table(("place", *(c.replace("_", " ") for c in CLASSES)), tuple(cells)),
    )


def energy_plot(surveys: Mapping[str, Sequence[PlaceAliasing]]) -> Plot:
    """Of every network: energy above the new limit at each place, without and with its filter."""
    found = {
        name: {
            site_name(row.name): (
                100 * float(row.above_before.nanmean()),
                100 * float(row.above_after.nanmean()),
                row.filtered,
            )
            for row in rows
        }
        for name, rows in surveys.items()
    }
    values = {
        name: {place: (v[0] if v[2] else None, v[1]) for place, v in places.items()}
        for name, places in found.items()
    }
    return _before_and_after(
        "Energy that can't be kept",
        values,
        "per cent of the energy above the new Nyquist limit",
        "Hollow: the map before its filter; full: the map of which positions are kept. What is "
        "left at a full marker comes back as other frequencies.",
    )


def step_plot(steps: Mapping[str, Sequence[Step]], shift: int = 1) -> Plot:
    """Of every network: flicker before and after each subsampling, for one shift."""
    values = {
        name: {
            site_name(s.name): (float(s.before[shift].mean()), float(s.after[shift].mean()))
            for s in found
        }
        for name, found in steps.items()
    }
    moved = f"{shift} pixel" + "s" * (shift > 1)
    return _before_and_after(
        f"Flicker as the image moves by {moved}",
        values,
        "distance from the map that should have moved along, relative",
        "Hollow: before a subsampling; full: after it. A step to the right is flicker that this "
        "place brings in; 0 is a map that moves along.",
    )


def most_from(steps: Sequence[Step]) -> Step:
    """The step that brings in the most flicker."""
    return max(steps, key=lambda step: float(step.brought_in.mean()))


def _before_and_after(
    title: str,
    values: Mapping[str, Mapping[str, tuple[float | None, float]]],
    axis: str,
    reading: str,
) -> Plot:
    names = list(dict.fromkeys(place for rows in values.values() for place in rows))
    figure, panel = _rows(names)
    for index, (network, rows) in enumerate(values.items()):
        colour, marker = style(index).values()
        shift = 0.16 * (index - (len(values) - 1) / 2)
        for place, (before, after) in rows.items():
            row = names.index(place) + shift
            if before is not None:
                panel.plot([before, after], [row, row], color=colour, linewidth=1)
                panel.plot(before, row, marker, color=colour, fillstyle="none", markersize=5)
            panel.plot(after, row, marker, color=colour, markersize=6)
        panel.plot([], [], marker, color=colour, label=network)
    panel.set_xlim(left=0)
    panel.set_xlabel(axis)
    panel.grid(axis="x", alpha=0.3)
    legend_above(panel)
    header = ["place"]
    for network in values:
        header += [f"{network}, before", f"{network}, after"]
    cells = []
    for place in names:
        cell = [place]
        for rows in values.values():
            cell += ["–" if v is None else f"{v:.3g}" for v in rows.get(place, (None, None))]
        cells.append(tuple(cell))
    return Plot(title, figure, reading, Table(tuple(header), tuple(cells)))


def _rows(names: Sequence[str]) -> tuple[Figure, Axes]:
    """A panel with a row for each name, which stands above its row: names are long."""
    figure = Figure(figsize=(WIDTH, 1.2 + ROW * len(names)), layout="constrained")
    panel = figure.subplots()
    panel.set_yticks(range(len(names)), [""] * len(names))
    panel.tick_params(axis="y", length=0)
    panel.set_ylim(len(names) - 0.5, -0.7)
    across = panel.get_yaxis_transform()
    for row, name in enumerate(names):
        panel.text(0.01, row - 0.24, name, transform=across, fontsize=8, va="bottom")
    return figure, panel
