"""The picture of an experiment: accuracy against consistency, and agreement by shift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aa_plugins.diagnostics.oscillation import FREQUENCIES
from aa_plugins.report.plots import branch_keys, draw_curve, style
from aa_plugins.report.table import find, label
from experiments.results import Results
from experiments.tasks import is_analysis, numbers

CURVES = 6  # that can be told apart, with intervals at a dozen places
AXES = {
    "semantic": ("mIoU", "mASSC", "shift"),
    "instance": ("mask/AP/reference", "mask/mAISC", "mask/shift"),
    "classification": ("accuracy", "agreement", "shift"),
}


def picture(results: Results) -> Figure:
    """Two panels: a point a run, and agreement by shift: a curve a variant with its intervals over
    images or, where they would hide one another, a row a variant."""
    if is_analysis(results.experiment.task):
        return _curves(results)
    if results.experiment.task == "oscillations":
        return _told_apart(results)
    accuracy, consistency, curve = AXES[results.experiment.task]
    names = results.variants()
    trees = {name: results.summary(name, [curve]) for name in names}
    mapped = len(names) > CURVES and any(trees.values())
    height = 1.2 + 0.24 * len(names) if mapped else 3.4
    figure = Figure(figsize=(9.5, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for index, variant in enumerate(names):
        found = [results.values(variant, metric) for metric in (consistency, accuracy)]
        points = (list(values.values()) for values in found)
        left.plot(*points, linestyle="none", label=variant, **style(index))
    left.set_xlabel(label(consistency))
    left.set_ylabel(f"{label(accuracy)}, a point a seed")
    left.grid(alpha=0.3)
    if mapped:
        _map(right, trees, curve)
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=6)
    elif any(trees.values()):
        draw_curve(right, trees, curve)
        right.set_xlabel("agreement by shift (down, right)")
        right.grid(alpha=0.3)
    else:  # random pairs have no shifts in common
        right.axis("off")
        left.legend(fontsize="small")
    return figure


def _map(panel: Axes, trees: Mapping[str, Mapping], branch: str) -> None:
    """A row a variant, a column an entry of the branch, lighter where they agree more."""
    keys = branch_keys(trees, branch)
    values = [[find(tree, f"{branch}/{key}")["value"] for key in keys] for tree in trees.values()]
    image = panel.imshow(values, cmap="cividis", aspect="auto")
    panel.set_yticks(range(len(trees)), list(trees), fontsize="small")
    panel.set_xticks(range(len(keys)), keys, fontsize="small")
    panel.set_xlabel("agreement by shift (down, right)")
    panel.figure.colorbar(image, ax=panel, label="per cent")


def _told_apart(results: Results) -> Figure:
    """Of every variant, the share of right answers for each pair of frequencies, over its seeds."""
    names = results.variants()
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(names) :]:
        panel.axis("off")
    for panel, name in zip(panels.flat, names):
        found = np.zeros((FREQUENCIES, FREQUENCIES))
        for records in results.images[name].values():
            for record in records:
                found[tuple(record["frequencies"])] += record["right"] / record["images"]
        ends = (-0.5 / FREQUENCIES, 1 - 0.5 / FREQUENCIES)
        image = panel.imshow(
            found / len(results.images[name]), vmin=0, vmax=1, origin="lower", extent=ends * 2
        )
        panel.set_title(name, fontsize="small")
    figure.supxlabel("frequency along x, of the highest")
    figure.supylabel("frequency along y")
    figure.colorbar(image, ax=panels, label="share told apart", shrink=0.8)
    return figure


def _curves(results: Results) -> Figure:
    """Of an analysis: a panel for each number, over corruptions, bands or radii."""
    shown = numbers(results.experiment.columns)
    trees = {variant: results.summary(variant, shown) for variant in results.variants()}
    figure = Figure(figsize=(9.5, 3.4 * len(shown)), layout="constrained")
    for panel, name in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown):
        draw_curve(panel, trees, name)
        panel.set_ylabel(label(name))
    return figure


def save(results: Results, folder: Path) -> Path:
    """Write NAME.png into a folder and return its path."""
    path = folder / f"{results.experiment.name}.png"
    picture(results).savefig(path, dpi=80, metadata={"Software": None})
    return path
