"""Means over seeds, verdicts and tables, on records whose numbers are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aa_plugins.evaluation import semantic
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.records import RecordWriter
from aa_plugins.report.page import write_json
from experiments.plan import Claim, Experiment
from experiments.plots import picture, save
from experiments.results import Results
from experiments.tables import KINDS, renew

IMAGES = 12
PIXELS = 1000
DECLARATION = {
    "title": "Known",
    "config": "configs/mmseg/deeplabv3plus_r18_shapes_baseline.py",
    "data": "shapes",
    "task": "semantic",
    "seeds": [0, 1, 2],
    "columns": ["mIoU", "mASSC"],
    "variants": {"none": {"filter": "none"}, "blur": {"filter": "blur"}},
    "claims": [{"text": "Blur helps", "metric": "mASSC", "of": "blur", "against": "none"}],
}


def record(image: int, equal: int) -> dict:
    names = {"pixels": [PIXELS], "equal": [equal]}
    for margin in semantic.MARGINS[1:]:
        names[f"pixels_margin_{margin}"], names[f"equal_margin_{margin}"] = [0], [0]
    areas = {"intersection": [equal], "union": [PIXELS]}
    head = {"image_id": str(image), "protocol": "x", "shifts": [[1, 0]], "roles": ["mean"]}
    return {**head, "pairs": names, "classes": areas, "iou": areas}


def write(folder: Path, variant: str, seed: int, equal: np.ndarray) -> None:
    place = folder / "known" / f"{variant}_seed{seed}"
    records = [record(i, int(n)) for i, n in enumerate(equal)]
    with RecordWriter(place, Protocol(stride=8), {}) as writer:
        for row in records:
            writer.append(row)
    content = {
        "summary": semantic.SEMANTIC.summarise(records, resamples=10),
        "size": {"parameters": 2_000_000, "macs": 3_000_000_000},
        "training": {"cpu_seconds": 60.0, "peak_memory_mib": 10, "resumed": False},
        "environment": {"torch": "2", "threads": 1, "gpu": None},
        "options": [],
        "host": {},
        "filters": {"maxpool": {"departure": 0.1, "spread": 0.02}},
        "commit": "abc",
        "date": "2026-01-01",
    }
    write_json(place / "record.json", content)


@pytest.fixture
def experiment():
    fields = {**DECLARATION, "claims": tuple(Claim(**c) for c in DECLARATION["claims"])}
    return Experiment(name="known", **fields)


def results_of(experiment, folder, gains, images=None):
    """Records of "none" and of "blur", which is ahead by one gain a seed (in pixels)."""
    random = np.random.default_rng(0)
    for seed, gain in enumerate(gains):
        equal = random.integers(500, 900, IMAGES)
        write(folder, "none", seed, equal)
        write(folder, "blur", seed, equal + gain + random.integers(-3, 4, IMAGES))
    return Results.read(experiment, folder)


def test_means_are_over_seeds_and_images(experiment, tmp_path):
    results = results_of(experiment, tmp_path, [10, 20, 30])
    singles = results.values("blur", "mASSC")
    found = results.summary("blur", ["mASSC"])["mASSC"]
    assert found["value"] == pytest.approx(np.mean(list(singles.values())))
    assert found["low"] < found["value"] < found["high"]
    gaps = results.gaps("blur", "none", "mASSC")
    difference = results.difference("blur", "none", ["mASSC"])["mASSC"]
    assert difference["difference"] == pytest.approx(np.mean(list(gaps.values())))
    assert difference["high"] - difference["low"] < 1 < found["high"] - found["low"]


def test_differences_are_of_the_seeds_that_both_have(experiment, tmp_path):
    results_of(experiment, tmp_path, [10, 20, 30])
    (tmp_path / "known/blur_seed1/record.json").unlink()
    results = Results.read(experiment, tmp_path)
    assert results.seeds("blur", "none") == [0, 2]
    assert list(results.gaps("blur", "none", "mASSC")) == [0, 2]


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([10, 20, 30], "holds: +"),
        ([-10, -20, -30], "doesn't: -"),
        ([-10, 20, 30], "can't tell: +"),  # the interval over images is off zero, a seed isn't
        ([0, 0, 0], "can't tell: "),
        ([10, 20], "can't tell yet: +"),
        ([], "can't tell: not run"),
    ],
)
def test_verdicts(experiment, tmp_path, gains, verdict):
    results = results_of(experiment, tmp_path, gains)
    assert results.verdict(experiment.claims[0]).startswith(verdict)


def test_a_claim_of_less_is_the_opposite(experiment, tmp_path):
    results = results_of(experiment, tmp_path, [10, 20, 30])
    less = Claim("Blur hurts", "mASSC", "blur", "none", direction="lower")
    assert results.verdict(less).startswith("doesn't: +")


def test_a_number_far_from_zero_is_not_zero(experiment, tmp_path):
    results = results_of(experiment, tmp_path, [10, 20, 30])
    zero = Claim("None disagree", "mASSC", "blur", direction="zero")
    assert results.verdict(zero).startswith("doesn't, more: +7")


def test_two_functions_that_do_alike_are_not_told_apart(experiment, tmp_path):
    same = Claim("As consistent", "mASSC", "blur", "none", direction="zero")
    assert results_of(experiment, tmp_path, [0, 0, 0]).verdict(same).startswith("holds: ")
    assert results_of(experiment, tmp_path, [9, 9, 9]).verdict(same).startswith("doesn't, more: +")


def test_tables_are_renewed_between_their_markers(experiment, tmp_path):
    results_of(experiment, tmp_path, [10, 20, 30])
    (tmp_path / "known.yaml").write_text(json.dumps(DECLARATION))
    text = "before\n<!-- table: known/gaps -->\nold\n<!-- end -->\nafter\n"
    found = renew(text, tmp_path, tmp_path)
    assert found.startswith("before\n<!-- table: known/gaps -->\n\n| seed by seed | mIoU | mASSC |")
    assert "| blur - none | +" in found and "old" not in found and found.endswith("after\n")
    assert renew(found, tmp_path, tmp_path) == found
    with pytest.raises(ValueError, match="no table known/gasp: choose one of headline"):
        renew(text.replace("gaps", "gasp"), tmp_path, tmp_path)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_table_has_a_row_a_variant_or_pair(experiment, tmp_path, kind):
    results = results_of(experiment, tmp_path, [10, 20, 30])
    table = KINDS[kind](results)
    expected = {"paired": 1, "effects": 1, "gaps": 1, "verdicts": 1, "runs": 6}.get(kind, 2)
    assert len(table.rows) == expected
    assert all(len(row) == len(table.header) for row in table.rows)


def test_the_picture_has_a_point_a_run_and_a_curve_a_variant(experiment, tmp_path):
    results = results_of(experiment, tmp_path, [10, 20, 30])
    left, right = picture(results).axes
    assert [len(line.get_xdata()) for line in left.lines] == [3, 3]
    values = results.values("blur", "mASSC")
    assert list(left.lines[1].get_xdata()) == list(values.values())
    assert right.get_legend() is not None
    curves = [bars.lines[0] for bars in right.containers]
    for point, curve in zip(left.lines, curves, strict=True):
        assert point.get_color() == curve.get_color() and point.get_marker() == curve.get_marker()
    assert save(results, tmp_path).read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_many_variants_has_a_row_each(experiment, tmp_path):
    names = [f"v{number}" for number in range(9)]
    for number, name in enumerate(names):
        write(tmp_path, name, 0, np.full(IMAGES, 500 + number))
    many = replace(experiment, variants={name: {"filter": "blur"} for name in names}, claims=())
    left, right, _ = picture(Results.read(many, tmp_path)).axes
    assert len({(line.get_color(), line.get_marker()) for line in left.lines}) == 9
    assert [tick.get_text() for tick in right.get_yticklabels()] == names
    assert np.allclose(right.images[0].get_array()[:, 0], [50 + 0.1 * n for n in range(9)])
