"""FrequencyLowCutPool2d against the crop of the spectrum that defines it, and waves."""

import numpy as np
import pytest
import torch

from aa_plugins.layers import FrequencyLowCutPool2d


@pytest.mark.parametrize("size", [(16, 16), (8, 12)])
def test_equals_the_cropped_spectrum(size):
    """Grabinski et al., section 3: the middle half of the shifted spectrum, transformed back."""
    x = torch.randn(2, 3, *size)
    spectrum = np.fft.fftshift(np.fft.fft2(x.double().numpy(), norm="forward"), axes=(2, 3))
    height, width = size
    middle = spectrum[..., height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    low = np.fft.ifft2(np.fft.ifftshift(middle, axes=(2, 3)), norm="forward")
    expected = torch.from_numpy(low.real).float()
    # At the limit of one axis it keeps one of two mirrored frequencies, whose real part is half of
    # both; at the limit of both axes one of four, a checkerboard, of which ours is the mean.
    board = (-1.0) ** (torch.arange(height // 2)[:, None] + torch.arange(width // 2))
    rest = FrequencyLowCutPool2d(3)(x) - expected
    rest -= (rest * board).mean((2, 3), keepdim=True) * board
    torch.testing.assert_close(rest, torch.zeros_like(rest), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [12, 13, 15])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_wave_passes_below_the_limit_and_vanishes_above_it(size, stride):
    position = torch.arange(size, dtype=torch.float64)
    for cycles in range(size // 2 + 1):
        wave = torch.cos(2 * torch.pi * cycles * position / size)
        x = wave.expand(1, 1, size, size)
        share = 1 - 2 * stride * cycles / size
        expected = x[..., ::stride, ::stride] * (1 if share > 1e-9 or stride == 1 else 0)
        if abs(share) < 1e-9 and stride > 1:
            expected = x[..., ::stride, ::stride] * 0.5
        layer = FrequencyLowCutPool2d(1, stride)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-9)


def test_of_whole_maps_a_circular_shift_by_the_stride_is_a_shift_by_one():
    layer, x = FrequencyLowCutPool2d(2), torch.randn(1, 2, 12, 16)
    moved = layer(x.roll((2, -4), (2, 3)))
    torch.testing.assert_close(moved, layer(x).roll((1, -2), (2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions_and_gradients(dtype):
    layer, x = FrequencyLowCutPool2d(2), torch.rand(1, 2, 7, 10)
    y = layer(x.to(dtype))
    assert y.dtype == dtype and y.shape == (1, 2, 4, 5)
    torch.testing.assert_close(y.float(), layer(x), rtol=1e-2, atol=1e-2)
    x = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FrequencyLowCutPool2d(1), x)
    assert layer.state_dict() == {}
