"""Folding norms for inference, and the separable predictor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, AdaptiveBlurPool2d, FilterBankPool2d, antialias
from aa_plugins.layers import fuse


def perturbed(layer: nn.Module) -> nn.Module:
    """Random parameters and statistics, so that no default hides an error."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0, 0.5, generator=generator)
    layer.norm.running_mean.normal_(generator=generator)
    layer.norm.running_var.uniform_(0.5, 2, generator=generator)
    return layer.eval()


@pytest.mark.parametrize("seen", ["raw", "blurred"])
@pytest.mark.parametrize("predictor", ["full", "separable"])
@pytest.mark.parametrize("kind", [AdaptiveBlurPool2d, FilterBankPool2d])
def test_fused_filter_computes_the_same(kind: type[nn.Module], predictor: str, seen: str) -> None:
    layer = perturbed(kind(16, init="identity", predictor=predictor, predictor_input=seen))
    x = torch.randn(2, 16, 11, 14)
    expected = layer(x)
    assert fuse(nn.Sequential(layer)) == ["0"]
    assert isinstance(layer.norm, nn.Identity)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert fuse(nn.Sequential(layer)) == []


@pytest.mark.parametrize("norm", ["batch", "channel"])
@pytest.mark.parametrize("init", ["binomial", "identity", "paper"])
@pytest.mark.parametrize("predictor", ["full", "separable"])
@pytest.mark.parametrize("kind", [AdaptiveBlurPool2d, FilterBankPool2d])
def test_a_fused_filter_starts_again(kind, predictor: str, init: str, norm: str) -> None:
    layer = kind(8, init=init, predictor=predictor, norm=norm, dtype=torch.float64).eval()
    start = {key: value.clone() for key, value in layer.state_dict().items()}
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    fuse(nn.Sequential(layer))
    layer.reset_parameters()
    found = layer.state_dict()
    assert found.keys() == start.keys()
    for key, value in found.items():
        assert value.dtype == start[key].dtype and not layer.norm.training
        if not key.startswith("conv"):  # drawn anew
            assert torch.equal(value, start[key])


def test_fusing_refuses_training_mode() -> None:
    with pytest.raises(ValueError, match="filter 0 is in training mode.*eval"):
        fuse(nn.Sequential(AdaptiveBlurPool2d(8)))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(72, affine=False), nn.GroupNorm(8, 72)])
def test_a_norm_that_cannot_be_folded_is_refused_before_anything_changes(norm) -> None:
    model = nn.Sequential(AdaptiveBlurPool2d(8), AdaptiveBlurPool2d(8)).eval()
    model[1].norm = norm.eval()
    x = torch.randn(1, 8, 16, 16)
    expected = model(x)
    with pytest.raises(ValueError, match=f"filter 1 is {type(norm).__name__} without .*back"):
        fuse(model)
    model[1].train()
    with pytest.raises(ValueError, match="filter 1 is in training mode"):
        fuse(model)
    model[1].eval()
    assert torch.equal(model(x), expected) and isinstance(model[0].norm, nn.BatchNorm2d)


@pytest.mark.parametrize("build", ["torchvision", "detectron2"])
def test_frozen_norms_of_the_hosts_fold(build: str) -> None:
    layer = AdaptiveBlurPool2d(8).eval()
    nn.init.normal_(layer.norm.running_mean)
    nn.init.normal_(layer.norm.weight)
    x = torch.randn(1, 8, 16, 16)
    expected = layer(x)
    if build == "torchvision":
        from torchvision.ops import FrozenBatchNorm2d

        frozen = FrozenBatchNorm2d(72)
        frozen.load_state_dict(layer.norm.state_dict())
        layer.norm = frozen
    else:
        layers = pytest.importorskip("detectron2.layers", reason="Detectron2 isn't installed")
        layer = layers.FrozenBatchNorm2d.convert_frozen_batchnorm(layer)
    assert fuse(nn.Sequential(layer)) == ["0"]
    torch.testing.assert_close(layer(x), expected)


def test_separable_predictor_starts_as_the_blur_and_learns() -> None:
    x = torch.randn(2, 32, 12, 12)
    full, separable = (AdaptiveBlurPool2d(32, predictor=p) for p in ("full", "separable"))
    torch.testing.assert_close(separable(x), full(x))
    perturbed(separable)(x).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in separable.parameters())
    counts = [sum(p.numel() for p in layer.conv.parameters()) for layer in (full, separable)]
    assert counts == [32 * 72 * 9, 32 * 9 + 32 * 72]


def test_predictor_is_an_option_of_the_configuration() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
    antialias(model, AAConfig(predictor="separable"))
    assert any(".conv.1.weight" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="predictor='low-rank' is unknown.*separable"):
        AAConfig(predictor="low-rank")
