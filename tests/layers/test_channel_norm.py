"""The norm of predictors in networks without batch norms."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from aa_plugins import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d, antialias
from aa_plugins.export.filters import exportable
from aa_plugins.layers import filters_of, fuse
from aa_plugins.layers.channel_norm import ChannelNorm2d, norm_for

KINDS = [AdaptiveBlurPool2d, FilterBankPool2d]


def groups_of_norms(channels: int, **factory) -> nn.Module:
    return nn.GroupNorm(4, channels, **factory)


def test_it_normalises_the_channels_of_each_position():
    norm, x = ChannelNorm2d(6), torch.randn(2, 6, 3, 4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = torch.empty_like(x)
    for n, h, w in ((n, h, w) for n in range(2) for h in range(3) for w in range(4)):
        expected[n, :, h, w] = F.layer_norm(x[n, :, h, w], (6,), norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(
    ("network", "norm"),
    [
        (lambda: timm.create_model("resnet10t"), "batch"),
        (lambda: timm.create_model("efficientnet_lite0"), "batch"),
        (lambda: timm.create_model("resnet10t", norm_layer=groups_of_norms), "channel"),
        (lambda: timm.create_model("convnext_atto"), "channel"),
        (lambda: timm.create_model("swin_s3_tiny_224"), "channel"),
        (lambda: timm.layers.convert_sync_batchnorm(timm.create_model("resnet10t")), "batch"),
        (lambda: freeze_batch_norm_2d(timm.create_model("resnet10t")), "batch"),
    ],
)
def test_a_network_without_batch_norms_gets_none(network, norm):
    assert norm_for(network()) == norm


@pytest.mark.parametrize("filter", ["adaptive", "bank"])
def test_conversion_chooses_it(filter):
    model = timm.create_model("convnext_atto")
    antialias(model, {"filter": filter})
    assert {type(layer.norm) for _, layer in filters_of(model)} == {ChannelNorm2d}
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    antialias(other := timm.create_model("resnet10t"), {"filter": filter})
    assert {type(layer.norm) for _, layer in filters_of(other)} == {nn.BatchNorm2d}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["binomial", "identity", "paper"])
def test_a_batch_of_one_pixel_trains(kind, init):
    layer, x = kind(8, init=init, norm="channel").train(), torch.randn(1, 8, 2, 2)
    layer(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        kind(8, init=init).train()(x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_starts_are_the_same(kind):
    x = torch.randn(2, 8, 9, 10)
    start = kind(8, norm="channel").eval()
    torch.testing.assert_close(start(x), BlurPool2d(8, 3)(x))
    torch.testing.assert_close(kind(8, init="identity", norm="channel")(x), x[..., ::2, ::2])


@pytest.mark.parametrize("init", ["binomial", "identity", "paper"])
@pytest.mark.parametrize("kind", KINDS)
def test_fused_and_exported_it_computes_the_same(kind, init):
    torch.manual_seed(0)
    layer = kind(8, init=init, norm="channel", pad_mode="replicate").eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    x = torch.randn(2, 8, 9, 10)
    expected = layer(x)
    exported = exportable(nn.Sequential(layer))
    torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=1e-5)
    fuse(nn.Sequential(layer))
    assert layer.prior is None and isinstance(layer.norm, ChannelNorm2d)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert fuse(nn.Sequential(layer)) == []
