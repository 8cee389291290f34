"""init="identity" leaves the function of a network as it was, and the comparison can see.

The measure is `relative_difference`: largest absolute difference over largest absolute value, the
worst of the head's output and all stage features.
"""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.equivalence import perturb, relative_difference
from aa_plugins.surgery import filter_keys

ODD = (65, 97)  # 33×49, 17×25, 9×13, 5×7, 3×4 inside
ISSUE_SIZES = [(224, 224), (225, 225), (228, 228), (164, 196)]
RESNETS = [
    "resnet18",
    "resnet50",
    "resnet101",
    "resnet50d",
    "resnext50_32x4d",
    "wide_resnet50_2",
]
LARGE = ("resnet101", "wide_resnet50_2")
CASES = [(name, {}, [(64, 64), ODD], 7) for name in RESNETS if name not in LARGE] + [
    ("resnet50", {"output_stride": 8}, [ODD], 3),
    ("convnext_tiny", {}, ISSUE_SIZES, 3),
    ("convnextv2_tiny", {}, [(225, 225)], 3),
    ("swin_tiny_patch4_window7_224", {}, [(224, 224)], 3),
    ("swin_tiny_patch4_window7_224", {"img_size": (228, 244)}, [(228, 244)], 3),
    ("swinv2_tiny_window8_256", {}, [(256, 256)], 3),
    ("swinv2_cr_tiny_224", {}, [(224, 224)], 3),
]
SLOW_CASES = [(name, {}, [*ISSUE_SIZES, ODD], 7) for name in RESNETS] + [
    ("convnextv2_tiny", {}, ISSUE_SIZES, 3),
]


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The head's output and every stage's map."""
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        return [model.forward_head(last), *maps]


def case_id(value: object) -> str | None:
    return value if isinstance(value, str) else None


@pytest.mark.parametrize(
    ("name", "kwargs", "sizes", "sites"),
    CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES],
    ids=case_id,
)
def test_computes_what_the_plain_network_computes(name, kwargs, sizes, sites):
    plain = timm.create_model(name, **kwargs).eval()
    converted = copy.deepcopy(plain)
    perturb(plain, torch.randn(2, 3, *sizes[0]))

    report = antialias(converted, AAConfig(init="identity"))
    assert len(report.sites) == sites
    loaded = converted.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    # torch fills in a missing count of batches by itself.
    expected = {key for key in filter_keys(converted) if "num_batches_tracked" not in key}
    assert set(loaded.missing_keys) == expected

    for size in sizes:
        x = torch.randn(1, 3, *size)
        expected = outputs(plain, x)
        assert relative_difference(outputs(converted, x), expected) < 1e-5
    assert relative_difference(outputs(plain, x.roll(1, -1)), expected) > 0.01

    blurred = copy.deepcopy(plain)
    antialias(blurred, AAConfig(filter="blur"))
    blurred.load_state_dict(plain.state_dict())  # strict: the fixed blur has no keys
    assert relative_difference(outputs(blurred, x), expected) > 0.01
