"""Detectors of Detectron2, stabilized: losses are the host's own, weights load as ever."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

from detectron2.structures import BitMasks, Boxes
from detectron2.structures import Instances as Detectron2Instances
from detectron2.utils.events import EventStorage

from aa_plugins.command import run
from aa_plugins.detectron2.evaluate import build_detector
from aa_plugins.detectron2.instances import InstancesOf, trainable
from aa_plugins.detectron2.weights import load_detectron2_weights
from tests.detectron2.shared import SHAPES, TINY, decide

OPTIONS = [f"{key}={value}" for key, value in zip(TINY[::2], TINY[1::2])]


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return decide(build_detector(SHAPES, [*OPTIONS, "MODEL.DEVICE=cpu"]))


def test_losses_are_those_of_the_host(detector):
    network = InstancesOf(detector)
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        found = [one[one.scores > one.scores.median()] for one in network(images)]
    assert all(len(one) and one.masks.shape[1:] == (96, 128) for one in found)
    inputs = []
    for image, one in zip(images, found):
        truth = Detectron2Instances((96, 128))
        truth.gt_boxes, truth.gt_classes = Boxes(one.boxes), one.labels
        truth.gt_masks = BitMasks(one.masks)
        inputs.append({"image": image, "height": 96, "width": 128, "instances": truth})
    detector.train()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(1)
    with EventStorage():
        expected = sum(detector(inputs).values())
    detector.eval()
    torch.manual_seed(1)
    loss = network.losses(images, found)
    torch.testing.assert_close(loss, expected)
    assert not any(module.training for module in detector.modules())
    loss.backward()
    assert all(p.grad is not None for p in detector.parameters())
    detector.zero_grad(set_to_none=True)


def test_a_cascade_is_stabilized_by_its_own_losses():
    heads = [
        "MODEL.ROI_HEADS.NAME=CascadeROIHeads",
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG=True",
    ]
    cascade = trainable(build_detector(SHAPES, [*OPTIONS, *heads]))
    assert not hasattr(cascade, "answers")
    assert hasattr(trainable(build_detector(SHAPES, OPTIONS)), "answers")


def test_heads_say_of_the_teachers_boxes_what_inference_says(detector):
    network = trainable(detector)
    images = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    with torch.no_grad():
        features = network.features(images)
        (boxes,) = network.proposals(features)
        answers = network.answers(features, [boxes])
        (found,) = network(images)
        scores = answers.scores.softmax(1)[:, :-1]
        decoded = detector.roi_heads.box_predictor.box2box_transform.apply_deltas(
            answers.corrections.flatten(1), boxes
        ).unflatten(1, (-1, 4))
        decoded = torch.minimum(decoded.clamp(min=0), torch.tensor([128.0, 96, 128, 96]))
    # What inference keeps is among what the heads say.
    for box, score, label in zip(found.boxes, found.scores, found.labels):
        distances = (decoded[:, label] - box).abs().amax(1) + (scores[:, label] - score).abs()
        assert distances.min() < 1e-2
    assert len(found) and answers.masks.shape[0] == len(boxes)


def test_from_photos_to_weights_that_load_as_ever(detector, tmp_path, datasets, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        image = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        image.resize((128, 96)).save(photos / f"{number}.png")
    weights = tmp_path / "plain.pth"
    torch.save({"model": detector.state_dict()}, weights)
    out, options = tmp_path / "out", [*OPTIONS, "MODEL.AA.FILTER=adaptive"]
    command = [SHAPES, "--weights", weights, "--photos", photos, "--out", out]
    command += ["--data-root", datasets, "--cfg-options", *options]
    quick = ["--set", "size=[64,64]", "steps=1", "views=2", "batch=1", "check_every=1"]
    assert run("stabilize", list(map(str, [*command, *quick]))) == 0
    assert "agreement with the average" in capsys.readouterr().out
    assert set(json.loads((out / "report.json").read_text())) >= {"teacher", "before", "after"}
    student = build_detector(SHAPES, options)
    assert load_detectron2_weights(student, str(out / "stabilized.pth")) == []
