"""Multiply-accumulates against counts by hand."""

import importlib

import torch
from torch import nn

from aa_plugins.diagnostics.cost import count_macs
from aa_plugins.layers import AdaptiveBlurPool2d


def counted(model: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), count_macs(model) as macs:
        model(x)
    return macs[0]


def test_a_filter_costs_its_predictor_and_its_taps():
    kept, channels, groups = 6 * 5, 16, 8
    predictor = kept * channels * 9 * groups * 9
    layer = AdaptiveBlurPool2d(channels, groups=groups).eval()
    assert counted(layer, torch.randn(1, channels, 12, 10)) == predictor + kept * channels * 9


def test_importing_the_benchmark_changes_no_count():
    layer, x = AdaptiveBlurPool2d(16).eval(), torch.randn(1, 16, 12, 10)
    before = counted(layer, x)
    importlib.import_module("benchmark.suites")
    assert counted(layer, x) == before


def test_gradients_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    model[0].weight.requires_grad = False
    counted(model, torch.randn(1, 3, 8, 8))
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
