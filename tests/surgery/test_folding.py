"""Norms folded from outside: the filter follows, or the network refuses to run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse as fuse_by_fx
from torch.nn.utils.fusion import fuse_conv_bn_eval

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.layers.strided import Filtered

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Conv(nn.Module):
    """A block as Ultralytics writes it, with its way to fuse."""

    default_act = nn.SiLU()

    def __init__(self, inputs: int, outputs: int, act: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = self.default_act if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))

    def forward_fuse(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x))


def fuse_like_ultralytics(model: nn.Module) -> nn.Module:
    """A new convolution with the old one's options, no norm, another forward."""
    for block in model.modules():
        if isinstance(block, Conv):
            block.conv = fuse_conv_bn_eval(block.conv, block.bn)
            del block.bn
            block.forward = block.forward_fuse
    return model


def fuse_by_mmcv(model: nn.Module) -> nn.Module:
    return pytest.importorskip("mmcv.cnn", reason="mmcv isn't installed").fuse_conv_bn(model)


def network(act: bool, filter: str, **options) -> nn.Module:
    """Two blocks whose norms, once folded, move every map."""
    torch.manual_seed(0)
    model = nn.Sequential(Conv(3, 8, act), Conv(8, 8, act), nn.Conv2d(8, 4, 1)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.uniform_(-1, 1)
    antialias(model, AAConfig(filter, stem=True, **options), example=IMAGE)
    return model.eval()


@pytest.mark.parametrize("fold", [fuse_like_ultralytics, fuse_by_fx, fuse_by_mmcv])
@pytest.mark.parametrize("act", [True, False], ids=["activation", "no activation"])
@pytest.mark.parametrize(
    ("filter", "options"),
    [
        ("adaptive", {"init": "paper"}),
        ("bank", {"init": "paper"}),
        ("blur", {}),
        ("blur", {"pad_mode": "zeros"}),
    ],
    ids=["adaptive", "bank", "blur", "blur with zeros"],
)
def test_the_function_is_kept_or_refused(
    fold: Callable[[nn.Module], nn.Module], act: bool, filter: str, options: dict
):
    model = network(act, filter, **options)
    with torch.no_grad():
        expected = model(IMAGE)
        folded = fold(copy.deepcopy(model))
        try:
            found = folded(IMAGE)
        except ValueError as error:
            assert not act, "behind an activation every filter follows"
            assert "is gone" in str(error) and "then call antialias()" in str(error)
        else:
            assert relative_difference([found], [expected]) < 1e-5


def test_an_activation_that_belongs_to_a_class_stays_as_it_is():
    for _ in range(2):
        network(True, "adaptive")
    assert type(Conv.default_act) is nn.SiLU


def maps(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What the head of a network of Ultralytics reads."""
    found: list[torch.Tensor] = []
    handle = model.model[-1].register_forward_pre_hook(lambda module, args: found.extend(args[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    return found


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo11n.yaml"])
def test_networks_of_ultralytics_convert_and_fuse(name):
    tasks = pytest.importorskip("ultralytics.nn.tasks", reason="ultralytics isn't installed")
    torch.manual_seed(0)
    model = tasks.DetectionModel(name, verbose=False).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.uniform_(-0.2, 0.2)
    x = torch.rand(1, 3, 96, 128)
    plain, same = maps(model, x), copy.deepcopy(model)
    assert len(antialias(same, AAConfig(init="identity", stem=True), example=x).sites) == 7
    assert relative_difference(maps(same, x), plain) < 1e-5
    antialias(model, AAConfig(init="paper", stem=True), example=x)
    expected = maps(model, x)
    assert relative_difference(expected, plain) > 1e-3
    assert relative_difference(maps(model.fuse(verbose=False), x), expected) < 1e-5


def test_a_trainer_of_ultralytics_that_converts_keeps_the_filters():
    """Its own trainer builds a plain network from the yaml, which the report says."""
    detect = pytest.importorskip("ultralytics.models.yolo.detect", reason="needs ultralytics")
    tasks = pytest.importorskip("ultralytics.nn.tasks", reason="needs ultralytics")

    class AntialiasedTrainer(detect.DetectionTrainer):
        def get_model(self, *args, **kwargs):
            model = super().get_model(*args, **kwargs)
            antialias(model, {"filter": "blur"})
            return model

    old = tasks.DetectionModel("yolov8n.yaml", verbose=False)
    report = antialias(old, {"filter": "blur"})
    assert any("YOLO.train() builds the network anew" in note for note in report.notes)
    trainer = object.__new__(AntialiasedTrainer)  # its __init__ would look for the data set
    trainer.args, trainer.data = SimpleNamespace(), {"nc": 80, "channels": 3, "names": {}}
    new = trainer.get_model(cfg=old.yaml, weights=old, verbose=False)
    filters = [m for m in new.modules() if isinstance(m, Filtered)]
    assert len(filters) == len(report.sites) > 0
    torch.testing.assert_close(new.state_dict(), old.state_dict())
