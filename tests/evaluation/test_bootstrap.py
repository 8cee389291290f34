import numpy as np
import pytest
import scipy.stats

from aa_plugins.evaluation.bootstrap import (
    Average,
    Mean,
    Ratio,
    average,
    differences,
    intervals,
    resampled_weights,
)


def test_mean_against_the_normal_interval():
    values = np.random.default_rng(0).normal(90, 3, 400)
    found = intervals({"x": Mean(values)})["x"]
    half = 1.96 * values.std() / 20
    assert found["value"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.04 * half * 2)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.04 * half * 2)
    assert found["images"] == 400


def test_ratio_against_scipy():
    random = np.random.default_rng(1)
    below = random.integers(1, 20, 60)
    above = random.binomial(below, 0.8)
    found = intervals({"x": Ratio(above, below, 100)})["x"]

    def pooled(above, below, axis):
        return 100 * above.sum(axis) / below.sum(axis)

    expected = scipy.stats.bootstrap(
        (above, below), pooled, paired=True, n_resamples=10_000, method="percentile", rng=2
    ).confidence_interval
    width = expected.high - expected.low
    assert found["low"] == pytest.approx(expected.low, abs=0.04 * width)
    assert found["high"] == pytest.approx(expected.high, abs=0.04 * width)


def test_mean_iou_under_weights_equals_repeated_images():
    random = np.random.default_rng(2)
    union = random.integers(1, 30, (7, 4)) * (random.random((7, 4)) < 0.5)
    intersection = (union * random.random((7, 4))).astype(int)
    statistic = Ratio(intersection, union, 100)
    for weights in resampled_weights(7, 20, seed=0):
        for row, found in zip(weights, statistic.estimate(weights)):
            drawn = np.repeat(np.arange(7), row.astype(int))
            assert len(drawn) == 7
            above, below = intersection[drawn].sum(0), union[drawn].sum(0)
            assert found == pytest.approx(100 * np.mean(above[below > 0] / below[below > 0]))


def test_paired_difference_is_far_narrower_than_the_two_intervals():
    random = np.random.default_rng(3)
    hard = random.normal(80, 10, 100)  # images differ far more than models do
    a, b = hard + random.normal(0, 0.5, 100), hard + 0.4 + random.normal(0, 0.5, 100)
    found = differences({"x": {"y": Mean(a)}}, {"x": {"y": Mean(b)}})["x"]["y"]
    gain = b - a
    assert found["difference"] == pytest.approx(gain.mean())
    half = 1.96 * gain.std() / 10
    assert found["low"] == pytest.approx(gain.mean() - half, abs=0.15 * half)
    assert found["high"] == pytest.approx(gain.mean() + half, abs=0.15 * half)
    assert found["low"] > 0  # though the models' own intervals overlap widely
    own = intervals({"a": Mean(a), "b": Mean(b)})
    assert own["a"]["high"] > own["b"]["low"]
    reverse = differences({"y": Mean(b)}, {"y": Mean(a)})["y"]
    assert reverse["low"] == pytest.approx(-found["high"])


def test_undefined_images_are_left_out_and_counted():
    found = intervals({"x": Mean([None, 1.0, 3.0])})["x"]
    assert (found["value"], found["images"]) == (2.0, 2)
    compared = differences({"x": Mean([None, 1.0, 3.0, 5.0])}, {"x": Mean([7.0, 2.0, None, 8.0])})
    assert compared["x"]["difference"] == pytest.approx(2.0)  # images 1 and 3 alone
    assert compared["x"]["images"] == 2
    empty = intervals({"x": Mean([None, None])})["x"]
    assert empty == {"value": None, "low": None, "high": None, "images": 0, "unit": "image"}
    single = intervals({"x": Mean([4.0])})["x"]
    assert single == {"value": 4.0, "low": None, "high": None, "images": 1, "unit": "image"}


def test_seeded_and_in_blocks():
    small = list(resampled_weights(5, 1000, seed=4))
    assert len(small) == 1
    assert small[0].sum(1).tolist() == [5] * 1000
    many = list(resampled_weights(3_000_000, 2, seed=4))
    assert [block.shape for block in many] == [(1, 3_000_000)] * 2
    values = Mean(np.random.default_rng(0).random(50))
    assert intervals({"x": values}) == intervals({"x": values})
    assert intervals({"x": values}) != intervals({"x": values}, seed=1)


def test_an_average_over_trainings_sees_the_same_resamples():
    random = np.random.default_rng(5)
    union = random.integers(1, 30, (9, 3))
    parts = [Ratio((union * random.random((9, 3))).astype(int), union) for _ in range(3)]
    weights = next(resampled_weights(9, 20, seed=0))
    expected = np.mean([part.estimate(weights) for part in parts], axis=0)
    assert np.allclose(Average(parts).estimate(weights), expected)
    once, thrice = {"x": parts[0]}, average([{"x": parts[0]}] * 3)
    several, single = intervals(thrice)["x"], intervals(once)["x"]
    for name in ("value", "low", "high", "images"):
        assert several[name] == pytest.approx(single[name])
    # Trainings that are all alike add nothing.
    assert (several["seeds_low"], several["seeds_high"]) == pytest.approx(
        (several["low"], several["high"])
    )


def test_averages_are_paired_training_by_training():
    a, b = ([Mean([1.0, 2.0, None]), Mean([2.0, 4.0, 6.0])] for _ in range(2))
    b[1] = Mean([None, 5.0, 7.0])
    found = differences(average([{"x": m} for m in a]), average([{"x": m} for m in b]))["x"]
    assert found["a"] == pytest.approx((1.5 + 5.0) / 2) and found["b"] == pytest.approx(3.75)
    assert found["images"] == 2
    assert average([{"x": a[0], "y": a[0]}, {"x": a[1]}]).keys() == {"x"}


def test_intervals_over_seeds_cover_other_seeds():
    """Of three trainings whose seeds matter most: 95 % intervals over images miss the mean over
    all seeds most of the time, those over seeds hold it."""
    random = np.random.default_rng(0)
    images, narrow, wide, draws = 60, 0, 0, 200
    for _ in range(draws):
        seeds = random.normal(0, 1, 3)
        trees = [{"x": Mean((5 + s + random.normal(0, 1, images)).tolist())} for s in seeds]
        found = intervals(average(trees), resamples=400)["x"]
        narrow += found["low"] <= 5 <= found["high"]
        wide += found["seeds_low"] <= 5 <= found["seeds_high"]
    assert narrow / draws < 0.5
    assert wide / draws > 0.88
    assert "seeds_low" not in intervals(average(trees[:2]), resamples=50)["x"]
