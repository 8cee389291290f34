"""Fusing a converted network for deployment keeps its filters and what it computes."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from timm.utils.model import reparameterize_model
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.layers import filters_of


class Branches(nn.Module):
    """A block that becomes one convolution of its own stride."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.a = nn.Conv2d(4, 4, 1, stride=stride)
        self.b = nn.Conv2d(4, 4, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(x)

    def fuse(self) -> nn.Module:
        conv = nn.Conv2d(4, 4, 1, stride=self.stride)
        conv.weight.data = self.a.weight + self.b.weight
        conv.bias.data = self.a.bias + self.b.bias
        return conv


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_block_with_a_filter_is_left_alone(copied):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 16, 16)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Branches(1), Branches(2)).eval()
    antialias(model, AAConfig(), example=x)
    expected = model(x)
    fused = reparameterize_model(copied(model))
    assert isinstance(fused[1], nn.Conv2d) and isinstance(fused[2], Branches)
    assert not hasattr(fused[2], "fuse") and hasattr(model[1], "fuse")
    torch.testing.assert_close(fused(x), expected)


@pytest.mark.parametrize(
    "name",
    [
        "repvgg_a0",
        "fastvit_t8",
        "repvit_m1",
        pytest.param("mobileone_s0", marks=pytest.mark.slow),
        pytest.param("efficientvit_m0", marks=pytest.mark.slow),
        pytest.param("ghostnetv3_050", marks=pytest.mark.slow),
        pytest.param("iformer_t", marks=pytest.mark.slow),
        pytest.param("lcnetv2_small", marks=pytest.mark.slow),
        pytest.param("nextvit_small", marks=pytest.mark.slow),
        pytest.param("repghostnet_050", marks=pytest.mark.slow),
        pytest.param("shvit_s1", marks=pytest.mark.slow),
        pytest.param("tiny_vit_5m_224", marks=pytest.mark.slow),
    ],
)
def test_timms_reparameterization(name):
    torch.manual_seed(0)
    model, x = timm.create_model(name), torch.randn(2, 3, 96, 96)
    report = antialias(model, AAConfig(stem=True))
    perturb(model, x)
    fused = reparameterize_model(model)
    assert len(list(filters_of(fused))) == len(report.sites)
    assert len(list(fused.parameters())) < len(list(model.parameters()))
    with torch.no_grad():
        assert relative_difference([fused(x)], [model(x)]) < 1e-4
