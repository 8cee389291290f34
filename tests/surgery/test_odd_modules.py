"""Modules that compute in ways of their own: exact, or left alone with the reason."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference

IMAGE = torch.randn(2, 3, 63, 50, generator=torch.Generator().manual_seed(0))
IDENTITY = AAConfig(init="identity", stem=True)


def converted(plain: nn.Module, config: AAConfig = IDENTITY):
    """The converted copy, and the report, after comparing what both compute."""
    model = copy.deepcopy(plain.eval())
    report = antialias(model, config, example=IMAGE)
    with torch.no_grad():
        for size in ((63, 50), (64, 64), (61, 66)):
            x = F.interpolate(IMAGE, size)
            assert relative_difference([model(x)], [plain(x)]) < 1e-5
    return model, report


def sites(report) -> list[str]:
    return [site.name for site in report.sites]


def reasons(report) -> dict[str, str]:
    return {row.name: row.reason for row in report.skipped}


def test_padding_computed_from_the_stride_by_mmcv():
    module = pytest.importorskip(
        "mmcv.cnn.bricks.conv2d_adaptive_padding", reason="mmcv isn't installed"
    )
    odd = module.Conv2dAdaptivePadding(3, 8, 3, 2, 1)
    _, report = converted(nn.Sequential(odd, nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)))
    assert sites(report) == ["2"]
    assert "isn't what it computes" in reasons(report)["0"]


@pytest.mark.parametrize("kind", ["MobileNetV1", "MobileNetV2"])
def test_padding_computed_from_the_stride_by_transformers(kind):
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    config = getattr(transformers, f"{kind}Config")(depth_multiplier=0.35, tf_padding=True)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    converted = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(IMAGE).last_hidden_state
        try:
            antialias(converted, IDENTITY, example=IMAGE)
        except ValueError as error:
            assert "nothing to convert" in str(error)
        assert relative_difference([converted(IMAGE).last_hidden_state], [expected]) < 1e-4


class Padded(nn.MaxPool2d):
    """Pads by itself, so that it gives ⌈H/2⌉."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        return super().forward(F.pad(x, (0, width % 2, 0, height % 2), value=-torch.inf))


class Centred(nn.AvgPool2d):
    """Takes off the mean of its map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = super().forward(x)
        return pooled - pooled.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("pool", "found"),
    [(Padded(2), ["0", "1"]), (Centred(2), ["0"])],
    ids=["what stays true densely", "what doesn't"],
)
def test_a_pool_with_a_forward_of_its_own_keeps_it(pool, found):
    _, report = converted(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), pool))
    assert sites(report) == found
    assert set(reasons(report)) == {"0", "1"} - set(found)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d(2, 2, dilation=2),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=4),
    ],
    ids=str,
)
def test_options_of_a_pool_are_kept(pool):
    assert sites(converted(nn.Sequential(nn.Conv2d(3, 8, 3), pool))[1]) == ["1"]


class Looks(nn.Module):
    """Decides by the values of its map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x))
        return x / x.max() if float(x.max()) > 0 else x


def test_a_forward_that_looks_at_values_is_followed():
    assert sites(converted(Looks())[1]) == ["conv"]


class Blocks(nn.Module):
    """Every block ends in one and the same activation."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.SiLU()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 8, 3, 2, 1), nn.BatchNorm2d(8), act) for c in (3, 8, 8)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("filter", ["adaptive", "blur"])
def test_an_activation_that_several_blocks_share_hosts_a_filter_of_each(filter):
    if filter == "adaptive":
        model, report = converted(Blocks())
    else:
        model = Blocks().eval()
        report = antialias(model, AAConfig("blur", stem=True), example=IMAGE)
    assert sites(report) == [f"blocks.{n}.0" for n in range(3)]
    assert [site.place for site in report.sites] == [f"after blocks.{n}.2" for n in range(3)]
    assert len({id(block[2]) for block in model.blocks}) == 3


def test_a_residual_block_with_a_stride_along_one_axis_is_left_alone():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry = nn.Conv2d(3, 8, 3, 2, 1)
            self.conv1 = nn.Conv2d(8, 8, 3, (2, 1), 1)
            self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
            self.downsample = nn.Conv2d(8, 8, 1, (2, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.entry(x)
            return self.conv2(self.conv1(x).relu()) + self.downsample(x)

    Residual.__name__ = "BasicBlock"
    _, report = converted(Residual())
    assert sites(report) == ["entry"]
    assert {"conv1", "downsample"} <= set(reasons(report))


@pytest.mark.parametrize("wrap", ["compile", "trace", "shard"])
def test_what_is_compiled_or_sharded_is_refused_with_the_order(wrap):
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()).eval()
    if wrap == "compile":
        model = torch.compile(plain, backend="eager")
    elif wrap == "trace":
        model = torch.jit.trace(plain, IMAGE)
    else:
        model = type("FSDPSequential", (type("FSDPModule", (), {}), nn.Sequential), {})(plain)
    with pytest.raises(ValueError, match="already: call antialias\\(\\) first"):
        antialias(model, IDENTITY, example=IMAGE)
