"""Intervals that know of sequences cover a known difference as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from aa_plugins.evaluation.bootstrap import Mean, differences
from aa_plugins.evaluation.resampling import Images, units_of

DIFFERENCE = 0.4
DRAWS = 1000


def series(random: np.random.Generator, correlation: float, frames: int) -> np.ndarray:
    """A stationary autoregression of order 1 with unit variance."""
    noise = random.normal(size=frames) * np.sqrt(1 - correlation**2)
    noise[0] = random.normal()
    values = np.empty(frames)
    for index in range(frames):
        values[index] = noise[index] + (correlation * values[index - 1] if index else 0.0)
    return values


def coverage(correlation: float, frames: int, sequences: int, know: bool, draws: int) -> float:
    """Share of simulated comparisons whose interval holds the true difference, in percent.

    Args:
        know: whether records say what sequence they are of.
    """
    random = np.random.default_rng(int(100 * correlation) + sequences)
    records = [
        {"image_id": f"{s}_{p}", "sequence": str(s), "position": p}
        for s in range(sequences)
        for p in range(frames)
    ]
    units = units_of(records) if know else Images()
    held = 0
    for _ in range(draws):
        # Both models share what is hard in an image; their difference depends on the frame, too.
        shared = np.concatenate([series(random, correlation, frames) for _ in range(sequences)])
        own = np.concatenate([series(random, correlation, frames) for _ in range(sequences)])
        trees = {"m": Mean(shared.tolist())}, {"m": Mean((shared + own + DIFFERENCE).tolist())}
        found = differences(*trees, resamples=600, units=units)["m"]
        held += found["low"] <= DIFFERENCE <= found["high"]
    return 100 * held / draws


@pytest.mark.slow
@pytest.mark.parametrize(
    ("correlation", "frames"), [(0.0, 100), (0.5, 400), (0.9, 1000)], ids=["0", "0.5", "0.9"]
)
def test_blocks_cover_in_93_to_97_of_100_draws(correlation, frames):
    assert 93 <= coverage(correlation, frames, 1, True, DRAWS) <= 97


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_independent_images_do_not(correlation):
    assert coverage(correlation, 200, 1, False, 300) < 88


@pytest.mark.slow
def test_whole_sequences_cover_too():
    assert 93 <= coverage(0.9, 20, 25, True, DRAWS) <= 97


def test_blocks_are_wider_where_frames_depend_on_one_another():
    assert coverage(0.9, 200, 1, True, 25) > coverage(0.9, 200, 1, False, 25)
