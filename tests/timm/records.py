"""The records behind docs/timm.md, for tests over many timm models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import timm

from timm_sweep.sweep import read

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "docs" / "results" / "timm.jsonl"
ROWS = read(RECORDS)
CONVERTED = [row for row in ROWS.values() if row["converted"]]
PLAIN = [row for row in ROWS.values() if not row["converted"]]
# What both hosts test fast: plain, inverted, hard-swish, weight-standardised, NHWC, attention, and
# mixed.
FAMILIES = (
    "regnetx_002",
    "test_efficientnet",
    "mobilenetv3_small_050",
    "test_nfnet",
    "test_mambaout",
    "pvt_v2_b0",
    "edgenext_xx_small",
)


def marked(rows: Iterable[dict[str, Any]], fast: Iterable[str] = ()) -> list[Any]:
    """Parameters of a test over models, of which all but `fast` are slow."""
    names = {row["model"] for row in rows}
    missing = [name for name in fast if name not in names]
    assert not missing, f"no record of {missing}"
    return [
        pytest.param(row, id=row["model"], marks=[] if row["model"] in fast else pytest.mark.slow)
        for row in rows
    ]


def usable_size(row: dict[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """`size`, or the only one that a model takes."""
    fixed = row["odd_difference"] is False
    return tuple(timm.get_pretrained_cfg(row["model"]).input_size[1:]) if fixed else size


# Its worst stage feature, after 45 sites with random weights; its output is below 1e-4. float32
# takes the plain network's own features further from float64, where the two agree:
# test_compatibility.
ABOVE = {"pnasnet5large": 2e-4}
