"""The tables of the pages are those of the committed records."""

from pathlib import Path

import pytest

from experiments.tables import MARKED, renew

ROOT = Path(__file__).resolve().parents[3]


# The bootstrap of all tables takes as long as fifty other tests.
ALL_RESULTS = pytest.param("docs/results.md", marks=pytest.mark.slow)
ROBUSTNESS = pytest.param("docs/robustness.md", marks=pytest.mark.slow)


@pytest.mark.parametrize("page", ["README.md", ALL_RESULTS, "docs/benchmark.md", ROBUSTNESS])
def test_every_table_is_that_of_its_records(page):
    text = (ROOT / page).read_text()
    assert MARKED.search(text)
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == len(MARKED.findall(text))
    assert renew(text, ROOT / "configs/experiments", ROOT / "docs/results") == text
