"""Any nn.Module behind the hosts' interface: what it is asked, and what becomes of the answers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aa_plugins import AAConfig
from aa_plugins.datasets.images import ClassifiedImages, SegmentedImages
from aa_plugins.evaluation import Protocol, classification, semantic
from aa_plugins.hosts.interface import load_network
from aa_plugins.hosts.module import ModuleNetwork, Preparation

NETS = """
import torch
from torch import nn

def pixelwise():
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 1)

def strided():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1))

def nothing():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Noise with labels, and a module of networks."""
    random = np.random.default_rng(0)
    for split in ("images", "labels"):
        (tmp_path / split).mkdir()
    for index in range(2):
        Image.fromarray(random.integers(0, 255, (96, 112, 3), np.uint8)).save(
            tmp_path / f"images/{index}.png"
        )
        Image.fromarray(random.integers(0, 4, (96, 112), np.uint8)).save(
            tmp_path / f"labels/{index}.png"
        )
    (tmp_path / "shop_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def segmentor(function: str, folder, **options):
    given = {"task": "semantic", "data": folder / "images", "labels": folder / "labels"}
    return load_network(f"shop_nets:{function}", **{**given, **options})


def test_a_pixelwise_network_is_consistent_and_a_strided_one_is_not(folder):
    found = {}
    for function in ("pixelwise", "strided"):
        network = segmentor(function, folder)
        records = network.measure(Protocol(stride=4), folder / function)
        found[function] = semantic.SEMANTIC.summarise(records)["mASSC"]["value"]
    assert found["pixelwise"] == 100 > 90 > found["strided"]


def test_the_stride_and_the_classes_are_measured(folder):
    network = segmentor("strided", folder)
    assert network.stride == 4 and network.num_classes == 4
    assert network.protocol() == {"stride": 4}


def test_five_lines_of_python_measure_a_module(folder):
    images = SegmentedImages(folder / "images", folder / "labels")
    network = ModuleNetwork(nn.Conv2d(3, 4, 1), "semantic", images)
    records = network.measure(Protocol(stride=4), folder / "out")
    assert semantic.SEMANTIC.summarise(records)["mASSC"]["value"] == 100


def test_a_request_converts(folder):
    network = segmentor("strided", folder, aa=AAConfig(filter="blur", stem=True))
    assert any("BlurPool2d" in type(m).__name__ for m in network.model.modules())


def test_predictions_have_the_size_of_the_view(folder):
    (found,) = segmentor("strided", folder).predict([torch.zeros(3, 30, 46)])
    assert found.shape == (4, 30, 46)
    torch.testing.assert_close(found.sum(0), torch.ones(30, 46))


def test_a_single_channel_tells_two_classes_apart():
    network = ModuleNetwork(nn.Conv2d(3, 1, 1), "semantic")
    (found,) = network.predict([torch.randn(3, 8, 8)])
    logits = network.model(torch.zeros(1, 3, 8, 8))[0, 0]
    assert network.num_classes == 2 and found.shape == (2, 8, 8) and logits.shape == (8, 8)


def test_a_classifier_sees_views_of_its_own_size(folder):
    class Classifier(nn.Module):
        """Is the first pixel bright? Takes 64×64 alone."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, 2, 1)

        def forward(self, x):
            assert x.shape[-2:] in ((64, 64), (128, 128), (256, 256))
            return self.conv(x).mean((2, 3))

    images = ClassifiedImages(folder / "images", 2)
    preparation = Preparation(size=(64, 64))
    network = ModuleNetwork(Classifier(), "classification", images, preparation=preparation)
    assert network.stride == 2
    protocol = Protocol(**{**network.protocol(), "stride": 4, "shifts": ((1, 0),)})
    records = network.measure(protocol, folder / "out")
    assert 0 <= classification.CLASSIFICATION.summarise(records)["agreement"]["value"] <= 100
    pixels, _ = network.prepare(np.zeros((96, 200, 3), np.uint8), None)
    assert min(pixels.shape[1:]) == 64 + 2 * 8  # the longest shift, on either side


def test_labels_follow_a_resize(folder):
    network = segmentor("pixelwise", folder, size=(48, 56))
    pixels, labels = network.prepare(*network.images.read(0))
    assert pixels.shape == (3, 48, 56) and labels.shape == (48, 56)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("shop_nets:pixelwise", {}, "say what it does with --task"),
        ("shop_nets:nothing", {"task": "semantic"}, "returns int: return an nn.Module"),
        ("shop_nets:absent", {"task": "semantic"}, "has no function absent"),
        ("shop_nets:pixelwise", {"task": "semantic", "data_root": "x"}, "data_root='x' has no ef"),
        ("shop_nets:pixelwise", {"task": "semantic", "annotations": "x"}, "task instance; the ta"),
        ("timm:resnet18", {"task": "semantic"}, "is a classifier"),
        ("timm:resnet_18", {}, "timm has no model 'resnet_18'"),
        ("torchvision:fcn_resnet", {}, "did you mean fcn_resnet"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, network, options, message):
    with pytest.raises(ValueError, match=message):
        load_network(network, **options)


def test_weights_that_are_not_finite_are_refused():
    model = nn.Conv2d(3, 4, 1)
    nn.init.constant_(model.bias, torch.nan)
    with pytest.raises(ValueError, match="aren't finite"):
        ModuleNetwork(model, "semantic")
