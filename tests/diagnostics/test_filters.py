"""Departure from the fixed blur, spread between places, and whether blur follows detail."""

import pytest
import torch
from torch import nn

from aa_plugins import AdaptiveBlurPool2d, FilterBankPool2d
from aa_plugins.diagnostics.filters import aliased_power, variance_of, watch
from aa_plugins.layers import TrainedBlurPool2d
from aa_plugins.ops import binomial_taps


def measured(layer, x):
    model = nn.Sequential(layer).eval()
    with watch(model) as found:
        model(x)
    return found["0"]


@pytest.mark.parametrize("kind", [AdaptiveBlurPool2d, FilterBankPool2d])
def test_the_binomial_start_is_the_fixed_blur_everywhere(kind):
    found = measured(kind(8), torch.randn(2, 8, 9, 9))
    assert found["departure"] < 1e-6 and found["spread"] < 1e-6


def test_the_identity_start_departs_by_all_but_the_middle_tap():
    found = measured(FilterBankPool2d(8, init="identity"), torch.randn(2, 8, 9, 9))
    assert found["departure"] == pytest.approx(0.75) and found["spread"] < 1e-6


def test_two_kernels_at_half_of_the_places_each_are_half_their_distance_from_the_mean():
    layer = FilterBankPool2d(1, (1, 3), stride=1, groups=1, init="paper", pad_mode="replicate")
    layer.conv.weight.data.zero_()
    layer.conv.weight.data[0, 0, 1, 1], layer.conv.weight.data[1, 0, 1, 1] = 100.0, -100.0
    x = torch.ones(1, 1, 4, 6)
    x[..., :3] = -1.0  # here the binomial, there the identity: 0.75 apart
    found = measured(layer, x)
    assert found["spread"] == pytest.approx(0.75 / 2)
    assert found["departure"] == pytest.approx(0.75 / 2)


def test_passes_add_up_and_the_hooks_go():
    layer = FilterBankPool2d(8, init="paper")
    model = nn.Sequential(layer).eval()
    with watch(model) as found:
        for seed in range(3):
            model(torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(seed)))
    assert 0 < found["0"]["spread"] < found["0"]["departure"] < 1
    assert not layer._forward_hooks


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_a_binomial_of_k_taps_has_half_k_minus_1_square_pixels_in_all(kernel_size):
    line = binomial_taps(kernel_size)
    taps = (line[:, None] * line).view(1, 1, -1, 1, 1)
    assert variance_of(taps).item() == pytest.approx((kernel_size - 1) / 2)
    assert variance_of(taps / 8).item() == pytest.approx((kernel_size - 1) / 2)  # joint softmax


def test_a_tap_beside_the_middle_moves_but_does_not_blur():
    taps = torch.zeros(1, 1, 9, 1, 1)
    taps[0, 0, 2] = 1
    assert variance_of(taps).item() == 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_blur_follows_detail_or_shuns_it(sign):
    layer = FilterBankPool2d(1, (1, 3), stride=1, groups=1, init="paper", pad_mode="replicate")
    layer.conv.weight.data.zero_()  # the sum of the window decides: smooth on one side alone
    layer.conv.weight.data[0], layer.conv.weight.data[1] = -10 * sign, 10 * sign
    layer.conv.weight.data[:, 0, 1, 1] = 0
    x = torch.full((1, 1, 8, 16), -1.0)
    x[..., 8:] = 3.0 - torch.arange(64).view(8, 8) % 2 * 2  # columns of 3 and 1
    assert measured(layer, x)["follows_detail"] == pytest.approx(sign, abs=0.01)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("kernel_size", [3, 4])
def test_aliased_power_is_the_mean_squared_gain_beyond_the_new_nyquist_limit(stride, kernel_size):
    taps = torch.randn(1, 1, kernel_size**2, 1, 1, dtype=torch.float64)
    fine = 24 * 32  # both limits lie between two samples
    frequencies = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5
    waves = torch.exp(-2j * torch.pi * frequencies[:, None] * torch.arange(kernel_size))
    kernel = taps.view(kernel_size, kernel_size).to(waves.dtype)
    power = (waves @ kernel @ waves.T).abs().square()
    low = frequencies.abs() < 1 / (2 * stride)
    expected = power[~(low[:, None] & low)].mean()
    assert aliased_power(taps, stride).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_trained_filter_starts_low_pass_and_is_seen_to_leave_it():
    layer = TrainedBlurPool2d(4, groups=2)
    x = torch.randn(2, 4, 9, 9)
    start = measured(layer, x)
    assert start["departure"] < 1e-6 and start["gain"] == pytest.approx(1)
    assert start["passes"] == pytest.approx(0.0273, abs=1e-4)
    layer.change.data[:, 1, 1] += 0.5
    left = measured(layer, x)
    assert left["gain"] == pytest.approx(1.5) and left["passes"] > 5 * start["passes"]
    assert left["departure"] == pytest.approx(0.25) and left["spread"] == 0
