"""The generic rule: what it converts computes what it did, and what it leaves alone has a row."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timm.layers import (
    AvgPool2dSame,
    BatchNormAct2d,
    Conv2dSame,
    GroupNormAct,
    ScaledStdConv2d,
    StdConv2dSame,
)
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from aa_plugins import AAConfig, AdaptiveBlurPool2d, antialias
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.surgery.follow import follow
from aa_plugins.surgery.sites import find_sites

IDENTITY = AAConfig(init="identity")
IMAGE = torch.zeros(1, 3, 32, 32)
LAYERS = {
    "conv": lambda k, s, p, d: nn.Conv2d(12, 10, k, s, p, d),
    "depthwise": lambda k, s, p, d: nn.Conv2d(12, 12, k, s, p, d, groups=12),
    "grouped": lambda k, s, p, d: nn.Conv2d(12, 18, k, s, p, d, groups=3),
    "reflecting": lambda k, s, p, d: nn.Conv2d(12, 8, k, s, p, d, padding_mode="reflect"),
    "standardised": lambda k, s, p, d: ScaledStdConv2d(12, 8, k, s, p, d),
    "same": lambda k, s, p, d: Conv2dSame(12, 10, k, s, dilation=d),
    "standardised same": lambda k, s, p, d: StdConv2dSame(12, 10, k, s, dilation=d),
    "max": lambda k, s, p, d: nn.MaxPool2d(k, s, p, d),
    "max ceil": lambda k, s, p, d: nn.MaxPool2d(k, s, p, d, ceil_mode=True),
    "max same": lambda k, s, p, d: MaxPool2dSame(k, s, dilation=d),
    "average": lambda k, s, p, d: nn.AvgPool2d(k, s, p),
    "average ceil": lambda k, s, p, d: nn.AvgPool2d(k, s, p, ceil_mode=True),
    "average inside": lambda k, s, p, d: nn.AvgPool2d(k, s, p, True, count_include_pad=False),
    "average same": lambda k, s, p, d: AvgPool2dSame(k, s),
}


def compute(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(x)]


@pytest.mark.parametrize("layer", LAYERS)
@settings(max_examples=12, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(2, 4),
    dilation=st.integers(1, 2),
    height=st.integers(9, 20),
    width=st.integers(9, 20),
)
def test_every_strided_layer_computes_what_it_did(layer, kernel, stride, dilation, height, width):
    torch.manual_seed(kernel + 10 * stride)
    padding = kernel // 2
    if "same" in layer:
        assume(stride == 2)  # timm pads wider strides by a rule of its own only where it can
    plain = nn.Sequential(nn.Conv2d(3, 12, 1), LAYERS[layer](kernel, stride, padding, dilation))
    x = torch.randn(2, 3, height, width)
    try:
        expected = compute(plain, x)
    except RuntimeError:
        assume(False)  # the map is smaller than the window
    converted = copy.deepcopy(plain)
    report = antialias(converted, IDENTITY, example=x)
    assert [site.name for site in report.sites] == ["1"]
    assert relative_difference(compute(converted, x), expected) < 1e-5


class Branches(nn.Module):
    """A pool that follows a convolution of one branch, and is defined after the other's."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 1)
        self.right = nn.Conv2d(3, 10, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.unused = nn.Conv2d(3, 3, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.pool(self.left(x)), self.right(x)), 1)


def test_a_pool_filters_the_map_it_reads():
    sites, skipped = find_sites(follow(Branches(), IMAGE))
    assert {site.name: site.channels for site in sites} == {"right": 10, "pool": 6}
    assert {row.name: row.reason for row in skipped} == {
        "unused": "the forward pass doesn't reach it"
    }


class Shared(nn.Module):
    """One pool at two places, and one activation too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.first(torch.cat((x, x[:, :1]), 1)))
        return self.pool(self.act(self.second(self.pool(x))))


def test_a_shared_module_gets_no_filter():
    sites, skipped = find_sites(follow(Shared(), IMAGE))
    assert [(site.name, site.host) for site in sites] == [("first", "first")]
    assert [row.name for row in skipped] == ["pool"]
    assert "runs 2 times" in skipped[0].reason


def sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, stride=2, padding=1), *layers)


@pytest.mark.parametrize(
    ("layers", "host"),
    [
        ([nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)], "3"),
        ([BatchNormAct2d(8), nn.Conv2d(8, 8, 1)], "2.act"),
        ([nn.Dropout2d(), nn.GELU(), nn.Identity(), nn.Hardswish()], "5"),
        ([nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)], "1"),
        ([nn.GroupNorm(2, 8), nn.ReLU()], "1"),  # it averages over positions
        ([GroupNormAct(8, 2)], "1"),
        ([nn.Softmax2d(), nn.ReLU()], "1"),
    ],
)
def test_the_filter_follows_the_nonlinearity(layers, host):
    plain = sequence(*layers)
    perturb(plain, torch.randn(2, 3, 13, 15))
    converted = copy.deepcopy(plain)
    report = antialias(converted, IDENTITY, example=IMAGE)
    assert report.sites[0].place == ("after it" if host == "1" else f"after {host}")
    x = torch.randn(1, 3, 13, 15)
    assert relative_difference(compute(converted, x), compute(plain, x)) < 1e-5


class ReadTwice(nn.Module):
    """The activation doesn't read alone what the strided convolution computes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(torch.cat((x, x[:, :1]), 1))
        return x + self.act(x)


def test_the_filter_stays_where_something_else_reads():
    sites, _ = find_sites(follow(ReadTwice(), IMAGE))
    assert [(site.name, site.host) for site in sites] == [("conv", "conv")]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, keys = x.flatten(2).mT, self.reduce(x).flatten(2).mT
        return F.scaled_dot_product_attention(queries, keys, keys).mT.view_as(x)


class AttentionGate(nn.Module):
    """Of attention it has but the name."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(8, 8, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.reduce(x).sigmoid()


class Functional(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, 2)[:, :, ::2, ::2]


@pytest.mark.parametrize(
    ("module", "kind", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 16, stride=16)), "stem", "patch embedding"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 8, stride=8)), "conv", "64 times"),
        (
            nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d(32)),
            "avg_pool",
            "gives one position of 32×32",
        ),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.AvgPool2d((1, 2))), "avg_pool", "between the axes"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), Attention()), "conv", "inside Attention"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), AdaptiveBlurPool2d(8)), "blur", "blurs already"),
        (nn.Sequential(nn.Conv2d(3, 8, 1), Functional()), "function", "max_pool2d 32×32 → 16×16"),
    ],
)
def test_what_is_left_alone_has_a_reason(module, kind, reason):
    sites, skipped = find_sites(follow(module, IMAGE))
    assert not sites
    assert skipped[0].kind == kind
    assert reason in skipped[0].reason
    with pytest.raises(ValueError, match="nothing to convert"):
        antialias(module, IDENTITY, example=IMAGE)
    assert reason in str(antialias(module, IDENTITY, example=IMAGE, dry_run=True))


def test_patterns_choose_sites_by_name():
    plain = nn.Sequential(sequence(nn.ReLU()), nn.Conv2d(8, 8, 3, stride=2), nn.MaxPool2d(2))
    for options, expected in [
        ({"include": "0.*"}, ["0.1"]),
        ({"exclude": ["0.*", "2"]}, ["1"]),
        ({"include": ["[12]"], "exclude": "2"}, ["1"]),
        ({"max_pool": False}, ["0.1", "1"]),
    ]:
        report = antialias(plain, AAConfig(**options), example=IMAGE, dry_run=True)
        assert [site.name for site in report.sites] == expected
    with pytest.raises(ValueError, match="'layer9' matches no site: choose among 0.1, 1, 2"):
        antialias(plain, AAConfig(exclude=("layer9",)), example=IMAGE)


def test_a_dry_run_leaves_the_network_as_it_is():
    model = sequence(BatchNormAct2d(8), nn.MaxPool2d(2)).train()
    before, text = copy.deepcopy(model.state_dict()), str(model)
    dry = antialias(model, IDENTITY, example=IMAGE, dry_run=True)
    assert str(model) == text and model.training and model[2].training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert antialias(model, IDENTITY, example=IMAGE) == dry


def test_an_input_is_found_or_asked_for():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(5, 8, 3, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[-1] != 48:
                raise RuntimeError("48 pixels, please")
            return self.conv(x)

    with pytest.raises(ValueError, match="48 pixels, please.*example="):
        antialias(Fixed(), AAConfig(stem=True))
    assert antialias(Fixed(), AAConfig(stem=True), example=torch.zeros(1, 5, 48, 48)).sites


def test_a_name_does_not_make_attention():
    sites, _ = find_sites(follow(nn.Sequential(nn.Conv2d(3, 8, 1), AttentionGate()), IMAGE))
    assert [site.name for site in sites] == ["1.reduce"]
