import json

import numpy as np
import pytest
import torch

from aa_plugins.evaluation import ClassificationConsistency, Protocol, extract, preset
from aa_plugins.evaluation.classification import CLASSIFICATION

LIST = Protocol(stride=8, shifts=((1, 0), (0, 2), (-3, 3)), controls=False)


def record(image_id, classes, label=None, protocol=LIST):
    plan = protocol.plan(40, 40, image_id)
    made = ClassificationConsistency(protocol, 5).score(plan, classes, label)
    return json.loads(json.dumps(made))


def test_hand_computed():
    # The classes of the reference and of the shifts (1, 0), (0, 2), (-3, 3).
    records = [
        record("a", [1, 1, 1, 2], label=1),
        record("b", [3, 3, 0, 3], label=0),
        record("c", [4, 4, 4, 4], label=2),
    ]
    found = CLASSIFICATION.summarise(records)
    values = {name: entry["value"] for name, entry in found["shift"].items()}
    assert values == pytest.approx({"1,0": 100, "0,2": 200 / 3, "-3,3": 200 / 3})
    assert found["agreement"]["value"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)
    # a: all three pairs hold a right view, two agree; b: only (0, 2); c: none.
    assert found["agreement_on_correct"]["value"] == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert found["agreement_on_correct"]["images"] == 2
    assert found["accuracy"]["value"] == pytest.approx(100 * (5 / 6 + 1 / 6 + 0) / 3)
    within = {name: entry["value"] for name, entry in found["unanimous_within"].items()}
    assert within == pytest.approx({"1": 100, "2": 200 / 3, "3": 100 / 3})
    within = {name: entry["value"] for name, entry in found["correct_within"].items()}
    assert within == pytest.approx({"1": 100 / 3, "2": 100 / 3, "3": 0})


def test_without_labels():
    found = CLASSIFICATION.summarise([record(i, [torch.eye(5)[i % 5]] * 4) for i in range(3)])
    assert found["agreement"]["value"] == 100
    assert "accuracy" not in found and "correct_within" not in found


def test_a_classifier_that_reads_every_eighth_pixel():
    """Equivariant to shifts by its stride alone; the mean of what it reads decides."""
    protocol = Protocol(kind="circular", stride=8)

    def records(step):
        scorer, made = ClassificationConsistency(protocol, 2), []
        for seed in range(40):
            image = torch.randn(48, 48, generator=torch.Generator().manual_seed(seed))
            plan = protocol.plan(48, 48, seed)
            means = (extract(image, view)[::step, ::step].mean() for view in plan.views)
            made.append(scorer.score(plan, (torch.stack([mean, -mean]) for mean in means), 0))
        return made

    blind, full = records(8), records(1)
    found = CLASSIFICATION.summarise(blind)
    assert found["controls"]["same_phase"]["value"] == 100
    assert found["aliasing_loss"]["low"] > 10
    difference = CLASSIFICATION.compare(blind, full)["agreement"]
    assert difference["b"] > 95
    assert difference["low"] > 20


def test_zhang_preset():
    protocol = preset("zhang")
    plan = protocol.plan(256, 256, "x")
    assert len(plan.views) == 2
    scorer = ClassificationConsistency(protocol, 5)
    found = CLASSIFICATION.summarise([scorer.score(plan, [np.eye(5)[3], np.eye(5)[2]], 3)])
    assert (found["agreement"]["value"], found["accuracy"]["value"]) == (0, 50)
    assert "unanimous_within" not in found  # no view is a reference


def test_errors_name_the_image():
    plan = LIST.plan(40, 40, "dog 3")
    scorer = ClassificationConsistency(LIST, 5)
    for message, predictions, label in [
        ("prediction 5 is outside of the classes 0 to 4", [5, 1, 1, 1], 1),
        ("label -1 is outside", [1, 1, 1, 1], -1),
        ("isn't finite", [torch.full((5,), torch.nan), 1, 1, 1], None),
        (r"shape \(4,\); give scores of shape \(5,\)", [np.zeros(4), 1, 1, 1], None),
        ("3 predictions for 4 views", [1, 1, 1], None),
    ]:
        with pytest.raises(ValueError, match=f"image 'dog 3'.*{message}"):
            scorer.score(plan, predictions, label)


@pytest.mark.parametrize("labels, remarked", [(range(5), True), ([3] * 5, False)])
def test_a_constant_classifier_is_called_so(labels, remarked):
    """Unless all of the images are of the class that it says."""
    protocol = Protocol(stride=4, shifts=((1, 0),), controls=False)
    scorer = ClassificationConsistency(protocol, 5)
    records = [
        scorer.score(protocol.plan(16, 16, number), [3, 3], label)
        for number, label in enumerate(labels)
    ]
    entry = CLASSIFICATION.summarise(records)["agreement"]
    assert entry["value"] == 100
    assert ("nearly constant: 100.0 % of the views" in entry.get("remark", "")) == remarked
