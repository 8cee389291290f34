"""The tables of the pages are those of the committed records."""

from pathlib import Path

import pytest

from benchmark import below_the_bar
from benchmark.table import measured
from experiments.tables import MARKED, renew

ROOT = Path(__file__).resolve().parents[3]
# The bootstrap of all tables takes as long as fifty other tests.
ALL_RESULTS = pytest.param("docs/results.md", marks=pytest.mark.slow)
ROBUSTNESS = pytest.param("docs/robustness.md", marks=pytest.mark.slow)
CHOOSING = pytest.param("docs/choosing.md", marks=pytest.mark.slow)
PAGES = ["README.md", ALL_RESULTS, CHOOSING, "docs/benchmark.md", ROBUSTNESS, "docs/deploy.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_that_of_its_records(page):
    text = (ROOT / page).read_text()
    assert MARKED.search(text)
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == len(MARKED.findall(text))
    assert renew(text, ROOT / "configs/experiments", ROOT / "docs/results") == text


def test_the_layer_was_measured_to_be_as_fast_as_it_has_to_be():
    """A bar that depends on the machine is checked where it is measured, not by a timed test."""
    rows = measured(ROOT / "docs/results/benchmark")
    assert sum(row["suite"] == "layer" for row in rows) and not below_the_bar(rows)
    slow = [{**row, "faster_than_published": 9.9} for row in rows if row["suite"] == "layer"]
    assert len(below_the_bar(slow)) == 3
