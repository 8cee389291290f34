import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from aa_plugins.report import Report, write_json
from aa_plugins.report.elements import Picture, png

ENTRY = {"value": 50.0, "low": 49.0, "high": 51.0}
REPORT = Report(
    "Shapes & discs",
    results={"baseline": {"mIoU": ENTRY, "shift": {"1,0": ENTRY}}, "blur": {"mIoU": ENTRY}},
    differences={"blur - baseline": {"mIoU": {"difference": 0.0, "low": -1.0, "high": 1.0}}},
    notes={"command": "make demo", "seeds": [0, 1]},
    pictures=[Picture(png(Figure()), "flips, in pink", "where it flips")],
)


def test_page_is_complete_and_self_contained():
    page = REPORT.html()
    opened = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            opened.append(tag)
            for name, value in attributes:
                assert name not in ("src", "href") or value.startswith(("data:", "#"))
                assert name != "alt" or value

    Reader().feed(page)
    assert opened.count("img") == 1 and opened.count("svg") == 2  # a metric, the shifts
    assert opened.count("table") == 2 + 2  # one behind every plot
    assert "script" not in opened and 'name="viewport"' in page
    assert "Shapes &amp; discs" in page and "where it flips" in page and "[0, 1]" in page
    assert not re.search("https?://", page)


def test_text_and_markdown_hold_both_tables():
    for form in (REPORT.text(), REPORT.markdown()):
        assert "50.00 [49.00, 51.00]" in form and "+0.00 [-1.00, +1.00]" in form
    assert "- command: make demo\n- seeds: [0, 1]" in REPORT.markdown()


def test_save_writes_what_was_given(tmp_path):
    REPORT.save(tmp_path / "new")
    saved = json.loads((tmp_path / "new" / "report.json").read_text())
    assert saved["results"] == REPORT.results and saved["differences"] == REPORT.differences
    assert {path.suffix for path in (tmp_path / "new").iterdir()} == {".json", ".md", ".html"}


def test_json_takes_numpy_and_refuses_nan(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"mIoU": np.float32(0.5), "counts": np.arange(3)})
    assert json.loads(path.read_text()) == {"mIoU": 0.5, "counts": [0, 1, 2]}
    with pytest.raises(ValueError):
        write_json(path, {"mIoU": float("nan")})
    assert json.loads(path.read_text())["mIoU"] == 0.5
