"""Filters in their exported form against the layers they stand for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.export.filters import exportable
from aa_plugins.layers import (
    AdaptiveBlurPool2d,
    BlurPool2d,
    FilterBankPool2d,
    LearnedFilter,
    PredictedFilter,
    TrainedBlurPool2d,
)

PADS = ("reflect", "replicate", "zeros", "circular")
SIZES = ((12, 16), (13, 9), (5, 6))
LAYERS = {
    **{f"blur-{k}": (BlurPool2d, dict(kernel_size=k)) for k in (2, 3, 4, 5, 7)},
    **{
        f"adaptive-{k}-{init}": (AdaptiveBlurPool2d, dict(kernel_size=k, init=init, groups=2))
        for k, init in itertools.product((3, 5), ("binomial", "identity", "paper"))
    },
    "joint": (AdaptiveBlurPool2d, dict(normalize="joint", init="paper", groups=4)),
    "separable": (AdaptiveBlurPool2d, dict(predictor="separable", groups=2)),
    "blurred": (AdaptiveBlurPool2d, dict(predictor_input="blurred", groups=2)),
    "pooled": (AdaptiveBlurPool2d, dict(predictor_input="pooled", groups=2)),
    "bank-pooled": (FilterBankPool2d, dict(predictor_input="pooled", groups=2)),
    **{f"trained-{k}": (TrainedBlurPool2d, dict(kernel_size=k, groups=2)) for k in (3, 4)},
    **{
        f"bank-{'-'.join(map(str, taps))}-{init}": (
            FilterBankPool2d,
            dict(taps=taps, init=init, groups=2),
        )
        for taps, init in itertools.product(((1, 3, 5), (3, 5)), ("binomial", "identity", "paper"))
    },
}


def drawn(layer: nn.Module) -> nn.Module:
    """The layer as if trained: gates half open, norms with statistics."""
    with torch.no_grad():
        if isinstance(layer, TrainedBlurPool2d):
            layer.change.uniform_(-0.2, 0.4)
        if isinstance(layer, PredictedFilter):
            if layer.gate is not None:
                layer.gate.uniform_(0.2, 0.9)
            layer.norm.weight.uniform_(0.5, 1.5)
            layer.norm.bias.uniform_(-0.5, 0.5)
            if isinstance(layer.norm, nn.BatchNorm2d):
                layer.norm.running_mean.uniform_(-0.2, 0.2)
                layer.norm.running_var.uniform_(0.5, 2)
    return layer.eval()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("pad_mode", PADS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_exported_form_computes_the_same(name, pad_mode, stride):
    torch.manual_seed(0)
    cls, options = LAYERS[name]
    layer = drawn(cls(8, stride=stride, pad_mode=pad_mode, **options))
    form = exportable(nn.Sequential(layer))
    assert not any(isinstance(m, (BlurPool2d, LearnedFilter)) for m in form.modules())
    for size in SIZES:
        x = torch.randn(2, 8, *size)
        with torch.no_grad():
            assert relative_difference([form(x)], [layer(x)]) < 1e-5


def test_the_network_itself_stays_as_it_is():
    layer = drawn(AdaptiveBlurPool2d(8, groups=2))
    model = nn.Sequential(layer)
    keys = list(model.state_dict())
    exportable(model)
    assert model[0] is layer and list(model.state_dict()) == keys
