"""Correlations of records with flicker, against numbers made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import pearsonr

from experiments import flicker


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(flicker, "RESAMPLES", 50)


def rows(noise=0.0):
    """Two networks of each of six designs: flicker falls with mASSC, and the seed shifts both."""
    random = np.random.default_rng(0)
    found = []
    for design in range(6):
        for seed in (0, 1):
            base = 95 + 0.5 * design
            found.append(
                {
                    "experiment": "e",
                    "variant": f"v{design}",
                    "seed": seed,
                    "mASSC": base + 3 * seed,
                    "aliasing_loss": float(random.normal()),
                    "mIoU": 60.0 + design,
                    "flicker": 100 - base + 2 * seed + noise * float(random.normal()),
                    "mTC": base,
                }
            )
    return found


def cells(folder: Path, content: list[dict]) -> dict[str, tuple[str, ...]]:
    (folder / "flicker").mkdir(exist_ok=True)
    (folder / "flicker" / flicker.FILE).write_text(json.dumps(content))
    return {row[0]: row[1:] for row in flicker.table(folder).rows}


def test_what_seeds_share_is_taken_out(tmp_path):
    content = rows()
    found = cells(tmp_path, content)["mASSC with flicker"]
    assert found[0] == "12"
    plain = pearsonr([r["mASSC"] for r in content], [r["flicker"] for r in content]).statistic
    assert float(found[1].split()[0]) == pytest.approx(plain, abs=0.01) and abs(plain) < 0.5
    assert found[3] == found[4] == "-1.00 [-1.00, -1.00]"


def test_a_network_that_ended_as_another_counts_once(tmp_path):
    content = rows(noise=0.1)
    copies = [{**row, "variant": "teacher"} for row in content[:2]]
    assert cells(tmp_path, [*content, *copies]) == cells(tmp_path, content)
