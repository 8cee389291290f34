import numpy as np

from aa_plugins.report.plots import branches, curve_plot, value_plot


def entry(value):
    return {"value": value, "low": value - 1, "high": value + 2}


RESULTS = {
    "baseline": {"mIoU": entry(50), "shift": {"1,0": entry(90), "0,1": entry(92)}},
    "adaptive": {"mIoU": 52.0, "shift": {"1,0": entry(95), "0,1": None}},
}


def test_branches_are_what_holds_entries():
    assert branches(RESULTS) == ["shift"]


def test_values_and_bars_are_drawn():
    (panel,) = value_plot(RESULTS, ["mIoU"]).axes
    points = [bar.lines[0].get_ydata().tolist() for bar in panel.containers]
    assert points == [[50.0], [52.0]]
    (bars,) = panel.containers[0].lines[2]
    assert np.allclose(bars.get_segments()[0][:, 1], [49, 52])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["baseline", "adaptive"]


def test_curves_leave_gaps_where_a_value_is_missing():
    (panel,) = curve_plot(RESULTS, "shift").axes
    first, second = (bar.lines[0].get_ydata() for bar in panel.containers)
    assert first.tolist() == [90, 92]
    assert second[0] == 95 and np.isnan(second[1])
    assert [text.get_text() for text in panel.get_legend().get_texts()] == list(RESULTS)
