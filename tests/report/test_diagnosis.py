"""Plots of aliasing and flicker, place by place."""

from __future__ import annotations

import pytest
import torch

from aa_plugins.diagnostics.stages import Step
from aa_plugins.diagnostics.survey import PlaceAliasing
from aa_plugins.report.diagnosis import class_plot, energy_plot, most_from, step_plot

PLAIN = [PlaceAliasing("conv1", False), PlaceAliasing("layer2.0.conv2", False)]
BLUR = [PlaceAliasing("conv1", False), PlaceAliasing("layer2.0.conv2.prefilter", True)]
for rows, after in ((PLAIN, 0.5), (BLUR, 0.1)):
    for row in rows:
        row.before = torch.tensor([[0.5, 0.1, 0.3, 0.1]])
        row.after = torch.tensor([[after, 0.1, 0.8 - after, 0.1]])
        row.above_before, row.above_after = torch.tensor([0.5]), torch.tensor([after])


def step(name: str, stride: int, before: float, after: float) -> Step:
    return Step(name, stride, {1: torch.tensor([before])}, {1: torch.tensor([after])})


STEPS = {
    "plain": [step("conv1", 2, 0.1, 0.5), step("pool", 4, 0.5, 0.6)],
    "blur": [step("conv1", 2, 0.1, 0.5), step("pool.postfilter", 4, 0.5, 0.2)],
}


def test_classes_fill_every_row():
    plot = class_plot("blur", BLUR)
    (panel,) = plot.figure.axes
    ends = [bar.get_x() + bar.get_width() for bar in panel.containers[-1]]
    assert ends == pytest.approx([100, 100])
    assert plot.table.rows[1] == ("layer2.0.conv2", "10.0", "10.0", "70.0", "10.0")


def test_networks_share_the_rows_of_a_place():
    plot = energy_plot({"plain": PLAIN, "blur": BLUR})
    assert plot.table.rows == (
        ("conv1", "–", "50", "–", "10"),
        ("layer2.0.conv2", "–", "50", "50", "10"),
    )


def test_flicker_before_and_after_a_step():
    plot = step_plot(STEPS)
    assert plot.table.rows[1] == ("pool", "0.5", "0.6", "0.5", "0.2")
    assert most_from(STEPS["plain"]).name == "conv1"
    assert float(STEPS["blur"][1].brought_in) == pytest.approx(-0.3)
    assert "pool" in plot.svg and "1 pixel" in plot.title
