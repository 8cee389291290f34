"""torchvision's detectors, stabilized: their own losses on what moved views say."""

from copy import deepcopy

import pytest
import torch

from aa_plugins.hosts.detector import InstancesOf
from aa_plugins.torchvision.detection import build_detector
from aa_plugins.training import Detections, Settings, stabilize

NAME = "fasterrcnn_mobilenet_v3_large_320_fpn"
SIZE = (96, 128)


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    model = build_detector(NAME, 3, {"filter": "none"}).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.normal_(0, 1)
        model.roi_heads.score_thresh = 0.4
    return model


def test_losses_are_torchvisions_own_at_the_size_of_the_view(plain):
    network = InstancesOf(plain)
    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        found = network(images)
    assert all(len(one) for one in found)
    truth = [{"boxes": one.boxes, "labels": one.labels} for one in found]
    resize = plain.transform.min_size, plain.transform.max_size
    plain.transform.min_size, plain.transform.max_size = (SIZE[0],), SIZE[1]
    plain.train()
    plain.backbone.eval()
    torch.manual_seed(1)
    expected = sum(plain(list(images), truth).values())
    plain.eval()
    plain.transform.min_size, plain.transform.max_size = resize
    torch.manual_seed(1)
    torch.testing.assert_close(network.losses(images, found), expected)
    assert (plain.transform.min_size, plain.transform.max_size) == resize
    assert not any(module.training for module in plain.modules())


def test_a_student_is_trained_and_its_teacher_is_not(plain):
    before = deepcopy(plain.state_dict())
    student = deepcopy(plain)
    images = list(torch.rand(3, 3, SIZE[0] + 31, SIZE[1] + 31))
    settings = Settings(stride=32, size=SIZE, views=2, batch=1, steps=2, check_every=1, estimate=2)
    pair = InstancesOf(student), InstancesOf(plain)
    report = stabilize(
        *pair, images[1:], settings, images[:1], progress=False, objective=Detections()
    )
    assert report.steps == 2 and 0 <= report.teacher.self <= 100
    assert report.teacher.teacher == 100  # the teacher agrees with itself on a view
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
