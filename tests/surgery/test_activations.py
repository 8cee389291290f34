"""Smooth activations at the sites alone, and the rule of small kernels."""

import pytest
import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias


def kinds(model: nn.Module) -> dict[str, str]:
    return {name: type(m).__name__ for name, m in model.named_modules() if "SiLU" in str(type(m))}


@pytest.mark.parametrize("placement", ["post", "pre"])
def test_the_relus_in_front_of_filters_are_smooth_and_all_others_stay(placement):
    model = timm.create_model("tf_efficientnet_lite0").eval()
    relus = sum(isinstance(m, nn.ReLU6) for m in model.modules())
    keys = list(model.state_dict())
    report = antialias(
        model, AAConfig(filter="blur", stem=True, activation="silu", placement=placement)
    )
    found = set(kinds(model))
    if placement == "post":  # behind the convolution
        assert found == {"bn1.act", *(f"blocks.{i}.0.bn2.act" for i in (1, 2, 3, 5))}
    else:  # before it; the stem reads the image
        assert found == {f"blocks.{i}.0.bn1.act" for i in (1, 2, 3, 5)}
    assert sum(isinstance(m, nn.ReLU6) for m in model.modules()) == relus - len(found)
    assert list(model.state_dict()) == keys
    assert any(note.startswith("silu in place of ReLU: b") for note in report.notes)


def test_a_filter_reads_what_the_smooth_activation_gives():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1))
    conv, last = model[0], model[2]
    config = AAConfig(filter="trained", init="identity", stem=True, activation="softplus")
    assert not config.keeps_function
    antialias(model, config)
    x = torch.randn(1, 3, 12, 12)
    expected = last(nn.functional.softplus(nn.functional.conv2d(x, conv.weight, conv.bias, 2, 1)))
    torch.testing.assert_close(model(x), expected)


def test_a_relu_that_others_use_is_left_alone_and_named():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18()
    report = antialias(model, AAConfig(filter="blur", activation="silu"))
    assert not kinds(model)
    note = next(note for note in report.notes if "left alone" in note)
    assert "layer2.0.conv1" in note and "silu in place of ReLU: nowhere" in report.notes


def test_a_dry_run_exchanges_nothing():
    model = timm.create_model("tf_efficientnet_lite0")
    report = antialias(model, AAConfig(filter="blur", activation="silu"), dry_run=True)
    assert not kinds(model) and any("silu in place" in note for note in report.notes)


def test_small_kernels_alone():
    model = timm.create_model("tf_efficientnet_lite0")
    report = antialias(model, AAConfig(filter="blur", stem=True, kernels="small"))
    names = {site.name for site in report.sites}
    skipped = {row.name: row.reason for row in report.skipped if "small" in row.reason}
    assert names == {"conv_stem", "blocks.1.0.conv_dw", "blocks.3.0.conv_dw"}
    assert set(skipped) == {"blocks.2.0.conv_dw", "blocks.5.0.conv_dw"}  # 5×5
    assert all("5 taps" in reason for reason in skipped.values())
