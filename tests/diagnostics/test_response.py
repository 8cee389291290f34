"""Gains of filters for pure tones, and how alike channels are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from aa_plugins.diagnostics.places import Place
from aa_plugins.diagnostics.response import TONE_POSITIONS, frequency_response, group_similarity
from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d

CYCLES = (0, 4, 8, 16, 24, 32)


@pytest.mark.parametrize("taps", [3, 5, 7])
def test_a_binomial_has_its_closed_form(taps):
    """H(ω) = cos^{2m}(ω/2) for 2m + 1 taps."""
    x = torch.randn(2, 3, 16, 16) + 1
    found = frequency_response(Place("", BlurPool2d(3, taps), 2), x, CYCLES)
    omega = torch.tensor([2 * math.pi * c / TONE_POSITIONS for c in CYCLES])
    expected = torch.cos(omega / 2) ** (taps - 1)
    torch.testing.assert_close(found, expected[:, None].expand(-1, 3), atol=2e-3, rtol=0)


def test_starts_have_the_response_that_they_claim():
    x = torch.randn(2, 4, 16, 16) + 1
    adaptive = AdaptiveBlurPool2d(4, groups=2, init="identity").eval()
    one = frequency_response(Place("", adaptive, 2), x, CYCLES)
    torch.testing.assert_close(one, torch.ones_like(one), atol=1e-4, rtol=0)
    bank = FilterBankPool2d(4, groups=2, init="binomial").eval()
    three = frequency_response(Place("", BlurPool2d(4), 2), x, CYCLES)
    found = frequency_response(Place("", bank, 2), x, CYCLES)
    torch.testing.assert_close(found, three, atol=1e-3, rtol=0)


def test_a_strided_convolution_has_the_response_of_its_kernel():
    conv = nn.Conv2d(1, 1, 3, 2, 1, bias=False)
    nn.init.constant_(conv.weight, 1 / 9)
    found = frequency_response(Place("", conv, 2), torch.randn(2, 1, 16, 16) + 1, (16, 32))
    # The mean of three neighbours: (1 + 2 cos ω)/3, negative at the highest frequency.
    torch.testing.assert_close(found[:, 0], torch.tensor([1 / 3, -1 / 3]), atol=2e-2, rtol=0)


def test_similarity_within_and_across_groups():
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 1, 32, 32)
    within, across = group_similarity(torch.cat([a, 2 * a + 1, b, -b], 1), 2)
    assert within == pytest.approx(1) and across < 0.1
    assert math.isnan(group_similarity(torch.cat([a, b], 1), 2)[0])
