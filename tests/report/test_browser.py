"""The page in a browser: readable at every width, in light and dark, without a network."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from aa_plugins.report import Report
from aa_plugins.report.moving import flip_movie

specification = importlib.util.spec_from_file_location(
    "browser", Path(__file__).with_name("browser.py")
)
browser = importlib.util.module_from_spec(specification)
specification.loader.exec_module(browser)

pytestmark = pytest.mark.skipif(not browser.CHROMIUM, reason="there is no Chromium here")


def entry(value: float) -> dict:
    return {"value": value, "low": value - 1, "high": value + 1}


def tree(value: float) -> dict:
    shifts = {f"{dy},{dx}": entry(value - dy - dx) for dy in (0, 1, 2) for dx in (0, 1, 2)}
    controls = {name: entry(value) for name in ("noise_floor", "same_phase", "near", "half")}
    margins = {str(margin): entry(value + margin / 8) for margin in (0, 4, 8, 16)}
    names = ("mIoU", "mASSC", "aliasing_loss", "fidelity")
    return {
        **{name: entry(value) for name in names},
        **{"shift": shifts, "controls": controls, "margin": margins},
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(3)]
    labels = {name: [random.integers(0, 3, (96, 128))] * 3 for name in ("plain", "blur")}
    flips = {name: [random.random((96, 128)) > 0.9] * 3 for name in labels}
    report = Report(
        "Shift consistency",
        {"plain": tree(92.0), "blur": tree(95.0)},
        {"blur - plain": {"mIoU": {"difference": 3.0, "low": 2.0, "high": 4.0}}},
        {"command": "aa-plugins consistency " + "--cfg-options a_rather_long_option=1 " * 6},
        [flip_movie(images, labels, flips, 3)],
        verdict="blur is more consistent than plain: mASSC +3.00 [+2.00, +4.00] points.",
    )
    folder = tmp_path_factory.mktemp("page")
    report.save(folder)
    return folder / "report.html"


@pytest.mark.parametrize("width", browser.WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_can_be_read(page, width, dark, tmp_path):
    found = browser.look(page, width, dark, tmp_path)
    assert found["scroll"] <= found["width"] <= width
    assert found["pictures"] == 1 and found["plots"] == 4 + 3
    assert found["unseen"] == 0 and found["unnamed"] == 0
    assert found["smallest"] >= 8
    assert found["console"] == [] and found["requests"] == []
    paper, ink = (sum(map(int, re.findall(r"\d+", found[k])[:3])) / 3 for k in ("paper", "ink"))
    assert (paper < 60 and ink > 180) if dark else (paper > 220 and ink < 60)
