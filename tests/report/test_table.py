import pytest

from aa_plugins.report import difference_table, result_table


def entry(value, low, high):
    return {"value": value, "low": low, "high": high, "images": 7}


RESULTS = {
    "baseline": {
        "mIoU": entry(50, 48.5, 51.25),
        "divergence": entry(0.01234, 0.01, 0.02),
        "controls": {"same_phase": entry(99, 98, 100)},
    },
    "adaptive": {"mIoU": 51.5, "mASSC": None, "controls": {"same_phase": None}},
}
DIFFERENCES = {"adaptive - baseline": {"mIoU": {"difference": 1.5, "low": -0.25, "high": 3}}}


def test_cells_show_value_and_interval():
    table = result_table(RESULTS)
    assert table.header == ("", "mIoU", "divergence", "mASSC")
    assert table.rows == (
        ("baseline", "50.00 [48.50, 51.25]", "0.0123 [0.0100, 0.0200]", "–"),
        ("adaptive", "51.50", "–", "–"),
    )


def test_chosen_metrics_may_lie_in_a_branch():
    table = result_table(RESULTS, ["controls/same_phase", "mIoU"])
    assert table.header == ("", "controls same phase", "mIoU")
    assert table.rows[0] == ("baseline", "99.00 [98.00, 100.00]", "50.00 [48.50, 51.25]")
    assert table.rows[1] == ("adaptive", "–", "51.50")


def test_differences_carry_sign_and_interval():
    table = difference_table(DIFFERENCES)
    assert table.rows == (("adaptive - baseline", "+1.50 [-0.25, +3.00]"),)


@pytest.mark.parametrize("bare", [1.5, {"difference": 1.5}])
def test_no_difference_without_its_interval(bare):
    with pytest.raises(ValueError, match="adaptive - baseline: mIoU has no interval"):
        difference_table({"adaptive - baseline": {"mIoU": bare}})


def test_difference_on_one_image_is_absent():
    one = {"difference": 1.5, "low": None, "high": None}
    assert difference_table({"pair": {"mIoU": one}}).rows == (("pair", "–"),)


def test_text_columns_align():
    lines = result_table(RESULTS).text().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].endswith("mASSC") and set(lines[1]) == {"-"}


def test_markdown():
    table = result_table({"a|b": {"mIoU": 1.0}})
    assert table.markdown() == "|  | mIoU |\n| --- | ---: |\n| a\\|b | 1.00 |"


def test_html_is_escaped():
    table = result_table({"<b>": {"mIoU": 1.0}})
    assert "<tr><td>&lt;b&gt;</td><td>1.00</td></tr>" in table.html()


def test_units_seeds_and_remarks_are_said():
    entry = {"value": 93.5, "low": 90.0, "high": 96.0, "unit": "block", "block": 20}
    seeds = {**entry, "block": 36, "seeds_low": 88.0, "seeds_high": 98.0, "remark": "constant"}
    table = result_table({"a": {"mASSC": entry}, "b": {"mASSC": seeds}})
    assert table.rows == (
        ("a", "93.50 [90.00, 96.00]"),
        ("b", "93.50 [90.00, 96.00] ⟨88.00, 98.00⟩ (constant)"),
    )
    said = (
        "95 % intervals [over blocks of 20 to 36 frames within sequences] and ⟨over these and "
        "seeds⟩."
    )
    assert table.caption == said
    assert table.text().endswith(said) and table.markdown().endswith(f"|\n\n{said}")
    assert f"<p>{said}</p>" in table.html()
    images = result_table({"a": {"mASSC": {**entry, "unit": "image"}}})
    assert images.caption == "95 % intervals [over images, taken to be independent]."
    sequences = result_table({"a": {"mASSC": {**entry, "unit": "sequence"}}})
    assert sequences.caption == "95 % intervals [over whole sequences]."
