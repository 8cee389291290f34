"""Numbers of conditions, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aa_plugins.evaluation.bootstrap import Mean, Ratio, intervals
from aa_plugins.evaluation.combined import Combined, mean_of, percent_of
from aa_plugins.robustness.tasks import ANALYSES, corruption_errors, quality


def record(name, label, **classes):
    """Of an image that is given two classes under each condition."""
    conditions = {
        condition.replace("_", "/"): {
            "image_id": name,
            "protocol": "p",
            "margin": None,
            "shifts": [[1, 0]],
            "roles": ["mean"],
            "classes": [list(pair)],
            "label": label,
            "from_reference": [True],
        }
        for condition, pair in classes.items()
    }
    return {"image_id": name, "protocol": "p", "conditions": conditions}


def network(seed, right):
    random = np.random.default_rng(seed)
    names = ["clean", *(f"{c}_{s}" for c in ("fog", "snow") for s in (1, 5))]
    images = []
    for image in range(12):
        label = int(random.integers(5))
        drawn = {n: np.where(random.random(2) < right, label, 9).tolist() for n in names}
        images.append(record(f"{image:02d}", label, **drawn))
    return images


def accuracy(records, condition):
    found = [r["conditions"][condition] for r in records]
    hits = [c == one["label"] for one in found for c in one["classes"][0]]
    return 100 * float(np.mean(hits))


def test_means_over_corruptions_and_severities():
    records = network(0, 0.7)
    tree = ANALYSES["classification/corruptions"].summarise(records, resamples=50)
    conditions = [f"{c}/{s}" for c in ("fog", "snow") for s in (1, 5)]
    found = {name: accuracy(records, name) for name in ["clean", *conditions]}
    assert tree["clean"]["accuracy"]["value"] == pytest.approx(found["clean"])
    fog = (found["fog/1"] + found["fog/5"]) / 2
    assert tree["accuracy"]["fog"]["value"] == pytest.approx(fog)
    worst = (found["fog/5"] + found["snow/5"]) / 2
    assert tree["severity_accuracy"]["5"]["value"] == pytest.approx(worst)
    mean = np.mean([found[name] for name in conditions])
    assert tree["mean"]["accuracy"]["value"] == pytest.approx(mean)
    assert tree["kept"]["accuracy"]["value"] == pytest.approx(100 * mean / found["clean"])
    agreeing = [r["conditions"]["snow/1"]["classes"][0] for r in records]
    first = 100 * np.mean([a == b for a, b in agreeing])
    agreeing = [r["conditions"]["snow/5"]["classes"][0] for r in records]
    second = 100 * np.mean([a == b for a, b in agreeing])
    assert tree["agreement"]["snow"]["value"] == pytest.approx((first + second) / 2)
    entry = tree["mean"]["accuracy"]
    assert entry["low"] < entry["value"] < entry["high"] and "seeds_low" not in entry


def test_errors_over_those_of_a_reference():
    ours, reference = network(0, 0.8), network(1, 0.5)
    for mine, theirs in zip(ours, reference):  # the same images
        for condition in theirs["conditions"].values():
            old, condition["label"] = condition["label"], mine["conditions"]["clean"]["label"]
            condition["classes"] = [
                [condition["label"] if c == old else 9 for c in pair]
                for pair in condition["classes"]
            ]
    found = corruption_errors("classification", ours, reference)
    ces, relative = [], []
    for corruption in ("fog", "snow"):
        ours_error, theirs_error = (
            [100 - accuracy(records, f"{corruption}/{s}") for s in (1, 5)]
            for records in (ours, reference)
        )
        ces.append(100 * sum(ours_error) / sum(theirs_error))
        assert found["CE"][corruption]["value"] == pytest.approx(ces[-1])
        grown = [
            sum(errors) - 2 * (100 - accuracy(records, "clean"))
            for errors, records in ((ours_error, ours), (theirs_error, reference))
        ]
        relative.append(100 * grown[0] / grown[1])
    assert found["mCE"]["value"] == pytest.approx(np.mean(ces))
    assert found["relative_mCE"]["value"] == pytest.approx(np.mean(relative))
    same = corruption_errors("classification", ours, ours)
    assert same["mCE"]["value"] == same["mCE"]["low"] == same["mCE"]["high"] == 100


def test_different_images_are_not_compared():
    ours = network(0, 0.8)
    with pytest.raises(ValueError, match="share 11 images"):
        corruption_errors("classification", ours, ours[1:])


def test_bands_and_shifts_are_curves():
    records = [record("a", 1, clean=(1, 1), band_0=(2, 2), band_1=(1, 2))]
    tree = ANALYSES["classification/bands"].summarise(records)
    assert [tree["accuracy"][band]["value"] for band in ("0", "1")] == [0, 50]
    assert [tree["agreement"][band]["value"] for band in ("0", "1")] == [100, 0]
    records = [record("a", 1, clean=(1, 1), within_1=(1, 1), within_4=(3, 3))]
    tree = ANALYSES["classification/shifts"].summarise(records)
    assert [tree["accuracy"][radius]["value"] for radius in ("1", "4")] == [100, 0]
    assert "agreement" not in tree


def test_how_right_an_image_is():
    entry = record("a", 1, clean=(1, 1))["conditions"]["clean"]
    assert quality("classification", entry) == 100
    assert quality("classification", {**entry, "classes": [[2, 2]]}) == 0
    assert quality("classification", {**entry, "label": None}) == np.inf


def test_what_is_combined_is_resampled_together():
    """A mean of means is the mean of the image's means; a quotient of equals is 100."""
    a, b = Mean([1, 2, 3, 4.0]), Mean([4, 3, 2, 2.0])
    found = intervals({"c": mean_of(a, b), "d": Mean([2.5, 2.5, 2.5, 3])}, resamples=200)
    assert found["c"] == found["d"]
    same = intervals({"s": percent_of(a, a)}, resamples=20)["s"]
    assert same["value"] == same["low"] == same["high"] == 100
    nothing = Combined(lambda x, y: x / y, a, Ratio([0] * 4, [1] * 4))
    assert np.isnan(nothing.estimate(np.ones((1, 4))))
    left, right = mean_of(Mean([1, None, 3])).paired(mean_of(Mean([1, 5, None])))
    assert left.defined == right.defined == 1
