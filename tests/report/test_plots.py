import numpy as np
import pytest

from aa_plugins.report.plots import branches, curve_plot, result_plots, surface_plot, value_plot


def entry(value):
    return {"value": value, "low": value - 1, "high": value + 2}


RESULTS = {
    "baseline": {
        "mIoU": entry(50),
        "shift": {"1,0": entry(90), "0,1": entry(92)},
        "mask": {"AP": {"reference": entry(30)}, "mAISC": entry(60)},
        "margin": {"0": entry(90), "16": entry(95)},
    },
    "adaptive": {
        "mIoU": 52.0,
        "shift": {"1,0": entry(95), "0,1": None},
        "mask": {"AP": {"reference": entry(31)}, "mAISC": entry(70)},
        "margin": {"0": entry(91), "16": None},
    },
}


def test_branches_hold_quantities_of_one_kind():
    assert branches(RESULTS) == ["shift", "mask/AP", "margin"]


def test_values_and_bars_are_drawn():
    (panel,) = value_plot(RESULTS, "mIoU").figure.axes
    points = [bar.lines[0].get_xdata().tolist() for bar in panel.containers]
    assert points == [[50.0], [52.0]]
    (bars,) = panel.containers[0].lines[2]
    assert np.allclose(bars.get_segments()[0][:, 0], [49, 52])
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["baseline", "adaptive"]


def test_curves_leave_gaps_where_a_value_is_missing():
    (panel,) = curve_plot(RESULTS, "margin").figure.axes
    first, second = (bar.lines[0] for bar in panel.containers)
    assert first.get_xdata().tolist() == [0, 16] and first.get_ydata().tolist() == [90, 95]
    assert second.get_ydata()[0] == 91 and np.isnan(second.get_ydata()[1])
    assert [text.get_text() for text in panel.get_legend().get_texts()] == list(RESULTS)


def test_unlike_quantities_are_not_joined():
    tree = {"a": {"controls": {"same_phase": entry(97), "half": entry(95)}}}
    (bar,) = curve_plot(tree, "controls").figure.axes[0].containers
    assert bar.lines[0].get_linestyle() == "None"


def test_shifts_are_a_surface_with_one_scale():
    figure = surface_plot(RESULTS, "shift").figure
    maps = [panel.images[0] for panel in figure.axes if panel.images]
    assert [m.get_clim() for m in maps] == [(90, 95)] * 2
    assert maps[0].get_array().tolist() == [[None, 92], [90, None]]  # rows are shifts down


def test_every_plot_has_its_numbers_and_a_sentence():
    plots = result_plots(RESULTS, ["mIoU"])
    assert [plot.title for plot in plots] == ["mIoU", "shift", "mask AP", "margin"]
    for plot in plots:
        assert plot.reading.endswith(".") and len(plot.table.rows) >= 1
    assert plots[3].table.rows[1] == ("16", "95.00 [94.00, 97.00]", "–")


@pytest.mark.parametrize("plot", result_plots(RESULTS, ["mIoU"]), ids=lambda plot: plot.title)
def test_plots_take_ink_and_paper_from_the_page(plot):
    svg = plot.svg
    assert svg.startswith('<svg role="img" aria-label="')
    assert "#000000" not in svg and "#ffffff" not in svg and "currentColor" in svg
    assert "http" not in svg
