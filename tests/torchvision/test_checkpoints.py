"""No checkpoint runs code where torchvision's detectors are measured."""

import pytest

from aa_plugins.datasets import write_shapes
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.torchvision import evaluate
from tests.attacks import SOME, write_attack, write_broken

FEW = Protocol(stride=64, shifts=((1, 0),), controls=False)
NAME = "torchvision:maskrcnn_resnet50_fpn"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_shapes(root / "shapes", "coco", train=1, val=1, size=(96, 144))
    return root / "shapes"


def measure(file, data, out):
    options = ["annotations=instances_val.json", "images=val"]
    return evaluate(NAME, file, FEW, out, data, options)


@pytest.mark.parametrize(("attacks", "broken"), SOME)
def test_no_checkpoint_runs_code(attacks, broken, data, tmp_path):
    for attack in attacks:
        file, trace = write_attack(attack, tmp_path)
        with pytest.raises(ValueError, match="it names .*weights and plain data only"):
            measure(file, data, tmp_path)
        assert not trace.exists()


@pytest.mark.parametrize(("attacks", "broken"), SOME)
def test_a_file_that_is_no_checkpoint_is_named(attacks, broken, data, tmp_path):
    for kind in broken:
        file = write_broken(kind, tmp_path)
        with pytest.raises((ValueError, FileNotFoundError), match=file.name):
            measure(file, data, tmp_path)
