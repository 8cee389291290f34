"""With the identity start, any network computes what it did, or says what was left alone."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import relative_difference
from aa_plugins.surgery.twin import tensors_in

specification = importlib.util.spec_from_file_location(
    "random_networks", Path(__file__).with_name("random_networks.py")
)
networks = importlib.util.module_from_spec(specification)
specification.loader.exec_module(networks)

EVERYWHERE = [
    AAConfig(kind, init="identity", stem=True, placement=placement)
    for placement in ("post", "pre")
    for kind in ("adaptive", "bank")
]
SIZES = ((33, 40), (48, 31))


def check(seed: int) -> int:
    """Convert one network; how many sites got a filter."""
    torch.manual_seed(seed)
    model = networks.Draw(seed).network().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                nn.init.uniform_(parameter, 0.3, 1.5)
    try:
        inputs = [torch.randn(2, 3, *size) for size in SIZES]
        with torch.no_grad():
            expected = [[leaf.clone() for _, leaf in tensors_in(model(x))] for x in inputs]
    except RuntimeError:
        return 0  # it shrinks the image to nothing by itself
    if not all(leaf.isfinite().all() and leaf.abs().max() > 0 for row in expected for leaf in row):
        return 0
    converted = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = antialias(converted, EVERYWHERE[seed % 4], example=inputs[0])
        except ValueError as error:
            assert "nothing to convert" in str(error), f"network {seed}: {error}"
            return 0
    strided = {
        name
        for name, m in model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and _strides(m)
    }
    named = {row.name for row in (*report.sites, *report.skipped)}
    assert strided <= named | _shared(model), f"network {seed}: {strided - named} isn't named"
    for x, outputs in zip(inputs, expected):
        with torch.no_grad():
            found = [leaf for _, leaf in tensors_in(converted(x))]
        difference = relative_difference(found, outputs)
        assert difference < 1e-4, f"network {seed}: off by {difference}\n{report}\n{model}"
    return len(report.sites)


def _strides(module: nn.Module) -> bool:
    stride = module.stride
    return (stride if isinstance(stride, int) else max(stride)) > 1


def _shared(model: nn.Module) -> set[str]:
    """Further names of modules that have several."""
    first = {m: n for n, m in model.named_modules()}
    return {n for n, m in model.named_modules(remove_duplicate=False) if first[m] != n}


def test_a_few_networks():
    assert sum(check(seed) for seed in range(40)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(20))
def test_two_thousand_networks(hundred):
    assert sum(check(100 * hundred + number) for number in range(100)) > 100
