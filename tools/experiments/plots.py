"""The picture of an experiment: accuracy against consistency, and agreement by shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from aa_plugins.diagnostics.oscillation import FREQUENCIES
from aa_plugins.report.plots import draw_curve
from aa_plugins.report.table import label
from experiments.results import Results
from experiments.tasks import is_analysis, numbers

AXES = {
    "semantic": ("mIoU", "mASSC", "shift"),
    "instance": ("mask/AP/reference", "mask/mAISC", "mask/shift"),
    "classification": ("accuracy", "agreement", "shift"),
}


def picture(results: Results) -> Figure:
    """Two panels: a point a run, and a curve a variant with its intervals over images."""
    if is_analysis(results.experiment.task):
        return _curves(results)
    if results.experiment.task == "oscillations":
        return _told_apart(results)
    accuracy, consistency, curve = AXES[results.experiment.task]
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for variant in results.variants():
        found = [results.values(variant, metric) for metric in (consistency, accuracy)]
        left.plot(*(list(values.values()) for values in found), "o", label=variant)
    left.set_xlabel(label(consistency))
    left.set_ylabel(f"{label(accuracy)}, a point a seed")
    trees = {variant: results.summary(variant, [curve]) for variant in results.variants()}
    if any(trees.values()):
        draw_curve(right, trees, curve)
        right.set_xlabel("agreement by shift (down, right)")
        right.grid(alpha=0.3)
    else:  # random pairs have no shifts in common
        right.axis("off")
        left.legend(fontsize="small")
    left.grid(alpha=0.3)
    return figure


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
