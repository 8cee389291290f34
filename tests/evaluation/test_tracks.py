"""Tracks, and their interruptions, jitters and switches, on hand-made clips."""

from __future__ import annotations

import math

import pytest

from aa_plugins.evaluation.bootstrap import intervals
from aa_plugins.evaluation.tracks import (
    LONGEST_GAP,
    Detection,
    identity_switches,
    instance_flicker,
    instance_statistics,
    link,
)


def box(x: float, y: float = 10, width: float = 20, height: float = 40) -> tuple:
    return (x, y, x + width, y + height)


def walker(frames: int = 8, step: float = 3, score: float = 0.9) -> list[list[Detection]]:
    """One person who walks evenly."""
    return [[Detection(box(step * t), 0, score)] for t in range(frames)]


def values(clip) -> dict:
    found = intervals(instance_statistics(instance_flicker(clip)), resamples=10)
    return {name: entry["value"] for name, entry in found.items()}


def test_even_motion_is_no_flicker():
    assert len(link(walker())) == 1
    assert values(walker()) == pytest.approx(
        dict.fromkeys(
            (
                "fragments",
                "centre_jitter",
                "scale_jitter",
                "aspect_jitter",
                "score_jitter",
                "class_switches",
            ),
            0.0,
        ),
        abs=1e-12,
    )


def test_one_dropped_object_is_one_interruption():
    clip = walker(10)
    clip[4] = []
    records = instance_flicker(clip)
    assert [r["interruptions"] for r in records] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert values(clip)["fragments"] == pytest.approx(100 / 10)


def test_an_object_that_stays_away_too_long_is_another_one():
    clip = walker(20, step=0)
    for t in range(5, 5 + LONGEST_GAP):
        clip[t] = []
    assert len(link(clip)) == 1
    clip[5 + LONGEST_GAP] = []
    assert len(link(clip)) == 2


def test_jitters_by_hand():
    clip = walker(3, step=0)
    clip[1] = [Detection(box(0, 10, 20, 40 * math.e), 0, 0.6)]
    found = values(clip)
    size = math.sqrt(20 * 40 * math.e)
    height = 40 * math.e - 40  # the centre moves by half of it, there and back
    assert found["centre_jitter"] == pytest.approx((height / size) ** 2)
    assert found["scale_jitter"] == pytest.approx(1.0)  # log size: 0, ½, 0
    assert found["aspect_jitter"] == pytest.approx(4.0)
    assert found["score_jitter"] == pytest.approx(0.3)


def test_switches_of_class():
    clip = walker(5, step=0)
    clip[2] = [clip[2][0]._replace(label=1)]
    assert values(clip)["class_switches"] == pytest.approx(100 * 2 / 4)
    assert len(link(clip)) == 1


def test_the_assignment_has_the_largest_total_overlap():
    # Greedy would give the left track the nearer box, and leave the right one without any.
    clip = [
        [Detection(box(0), 0, 1), Detection(box(8), 0, 1)],
        [Detection(box(4.5), 0, 1), Detection(box(-9), 0, 1)],
    ]
    tracks = link(clip)
    assert [t.detections[1].box[0] for t in tracks] == [-9, 4.5]


def test_identities_that_go_over():
    truth = [{7: box(0), 8: box(100)}] * 4
    kept = [[Detection(box(0), 0, 1), Detection(box(100), 0, 1)]] * 4
    assert identity_switches(kept, truth) == 0
    away = LONGEST_GAP + 2
    clip = kept[:1] + [[]] * away + kept[:1]
    assert identity_switches(clip, truth[:1] * (away + 2)) == 2


def test_no_detection_at_all():
    records = instance_flicker([[], []])
    assert all(r["alive"] == 0 for r in records)
    found = intervals(instance_statistics(records), resamples=10)
    assert all(entry["value"] is None for entry in found.values())
