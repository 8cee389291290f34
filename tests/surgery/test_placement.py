"""Filters before strided convolutions that keep their stride."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.layers import BlurPool2d

IDENTITY = AAConfig(init="identity", placement="pre", stem=True)
SIZE = (65, 97)


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "torchvision":
        from torchvision.models import shufflenet_v2_x0_5

        return shufflenet_v2_x0_5()
    if name == "mmseg":
        pytest.importorskip("mmseg", reason="MMSegmentation isn't installed")
        from mmseg.models import ResNetV1c

        return ResNetV1c(depth=18)
    if name == "detectron2":
        backbone = pytest.importorskip("detectron2.modeling.backbone", reason="no Detectron2")
        options = {"stride_in_1x1": False, "norm": "BN", "bottleneck_channels": 16}
        block = backbone.resnet.BottleneckBlock(32, 64, stride=2, **options)
        return nn.Sequential(backbone.BasicStem(3, 32, norm="BN"), block)
    return timm.create_model(name)


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("resnet18", 8),
        ("tf_mobilenetv3_small_minimal_100", 5),
        ("test_convnext", 3),
        ("torchvision", 8),
        ("mmseg", 8),
        ("detectron2", 4),
    ],
)
def test_with_identity_it_computes_what_it_did(name, sites):
    model, x = built(name), torch.randn(2, 3, *SIZE)
    model.eval()
    perturb(model, x)
    converted = copy.deepcopy(model)
    report = antialias(converted, IDENTITY, example=x)
    assert len(report.sites) == sites
    before = {site.name for site in report.sites if site.place == "before it"}
    for place in before:
        plain, now = (network.get_submodule(place) for network in (model, converted))
        assert plain.stride == now.stride or now.kernel_size == (1, 1)
    with torch.no_grad():
        assert relative_difference([_last(converted(x))], [_last(model(x))]) < 1e-5


def _last(output):
    return output[-1] if isinstance(output, (list, tuple)) else output


def test_a_convolution_reads_a_blurred_map():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, 2, 1)
    model = nn.Sequential(copy.deepcopy(conv), nn.ReLU())
    report = antialias(model, {"filter": "blur", "placement": "pre", "stem": True})
    assert [(s.channels, s.stride, s.place) for s in report.sites] == [(3, 1, "before it")]
    x = torch.randn(1, 3, 20, 31)
    torch.testing.assert_close(model(x), conv(BlurPool2d(3, 3, stride=1)(x)).relu())
    assert model.state_dict().keys() == nn.Sequential(conv).state_dict().keys()


@pytest.mark.parametrize(("filter", "most"), [("blur", 1.01), ("adaptive", 1.21)])
def test_it_costs_less_and_a_fixed_filter_next_to_nothing(filter, most):
    macs = []
    for aa in (None, {"filter": filter, "placement": "pre"}, {"filter": filter}):
        model = timm.create_model("resnet50").eval()
        if aa:
            antialias(model, aa)
        with torch.no_grad(), count_macs(model) as counted:
            model(torch.zeros(1, 3, 64, 64))
        macs += counted
    assert macs[1] / macs[0] < most < macs[2] / macs[0]


def test_pools_and_mergings_are_filtered_behind():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    twin = copy.deepcopy(model)
    for network, placement in ((model, "pre"), (twin, "post")):
        antialias(network, {"filter": "blur", "placement": placement})
    x = torch.randn(1, 3, 24, 24)
    assert torch.equal(model(x), twin(x))


def test_a_norm_folds_into_the_convolution_behind_the_filter():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)
    )
    model.train()(torch.randn(2, 3, 24, 24))
    antialias(model.eval(), {"init": "paper", "placement": "pre"})
    x = torch.randn(1, 3, 24, 24)
    expected = model(x)
    model[2], model[3] = fuse_conv_bn_eval(model[2], model[3]), nn.Identity()
    torch.testing.assert_close(model(x), expected)


def test_what_pads_by_its_stride_converts_where_it_keeps_it():
    """As transformers' and mmcv's MobileNets, whose dense version isn't what they compute."""

    class Padded(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            extra = self.kernel_size[0] - self.stride[0]
            return super().forward(nn.functional.pad(x, (0, extra, 0, extra)))

    x = torch.randn(1, 3, 24, 31)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), Padded(8, 8, 3, 2)).eval()
    with pytest.raises(ValueError, match="dense version"):
        antialias(copy.deepcopy(model), {"init": "identity"}, example=x)
    expected = model(x)
    antialias(model, IDENTITY, example=x)
    torch.testing.assert_close(model(x), expected)


def test_another_placement_is_refused():
    with pytest.raises(ValueError, match="placement='middle' is unknown: choose one of post, pre"):
        AAConfig(placement="middle")
