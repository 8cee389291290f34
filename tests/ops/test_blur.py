"""The filters on tensors against numpy's padding and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aa_plugins.ops import adaptive_blur2d, binomial_taps, blur2d, out_size, pad2d

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "zeros": "constant", "circular": "wrap"}


def numpy_pad(x: np.ndarray, kernel_size: int, pad_mode: str) -> np.ndarray:
    """One axis at a time; an axis too short to reflect is replicated."""
    before, after = (kernel_size - 1) // 2, kernel_size // 2
    for axis in (2, 3):
        widths = [(0, 0)] * 4
        widths[axis] = (before, after)
        short = pad_mode == "reflect" and x.shape[axis] <= after
        x = np.pad(x, widths, mode="edge" if short else NUMPY_MODES[pad_mode])
    return x


def loop_blur(x: np.ndarray, taps: np.ndarray, stride: int, pad_mode: str) -> np.ndarray:
    """The definition, position by position: taps (N, G, k², H', W')."""
    n, channels, height, width = x.shape
    groups, area = taps.shape[1:3]
    k = round(area**0.5)
    padded = numpy_pad(x, k, pad_mode)
    out = np.zeros((n, channels, -(-height // stride), -(-width // stride)))
    for i, c, h, w in np.ndindex(*out.shape):
        window = padded[i, c, h * stride : h * stride + k, w * stride : w * stride + k]
        out[i, c, h, w] = (window.ravel() * taps[i, c // (channels // groups), :, h, w]).sum()
    return out


@pytest.mark.parametrize("kernel_size", range(1, 8))
def test_binomial_taps_are_repeated_averages_of_two(kernel_size):
    expected = np.ones(1)
    for _ in range(kernel_size - 1):
        expected = np.convolve(expected, [0.5, 0.5])
    np.testing.assert_allclose(binomial_taps(kernel_size).numpy(), expected, rtol=1e-6)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    kernel_size=st.integers(2, 7),
    pad_mode=st.sampled_from(sorted(NUMPY_MODES)),
)
@settings(max_examples=80, deadline=None)
def test_pad2d_is_numpys_padding(height, width, kernel_size, pad_mode):
    x = torch.randn(2, 3, height, width)
    expected = numpy_pad(x.numpy(), kernel_size, pad_mode)
    np.testing.assert_array_equal(pad2d(x, kernel_size, pad_mode).numpy(), expected)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel_size=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 4),
    groups=st.sampled_from([1, 2, 4]),
    pad_mode=st.sampled_from(sorted(NUMPY_MODES)),
)
@settings(max_examples=60, deadline=None)
def test_adaptive_blur2d_is_the_definition(size, kernel_size, stride, groups, pad_mode):
    kept = [out_size(s, stride) for s in size]
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    taps = torch.randn(2, groups, kernel_size**2, *kept, dtype=torch.float64)
    found = adaptive_blur2d(x, taps, stride, pad_mode).numpy()
    expected = loop_blur(x.numpy(), taps.numpy(), stride, pad_mode)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel_size=st.integers(2, 7),
    stride=st.integers(1, 4),
    pad_mode=st.sampled_from(sorted(NUMPY_MODES)),
)
@settings(max_examples=60, deadline=None)
def test_blur2d_is_the_definition_with_constant_taps(size, kernel_size, stride, pad_mode):
    kept = [out_size(s, stride) for s in size]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    taps = torch.randn(kernel_size, kernel_size, dtype=torch.float64)
    everywhere = taps.view(1, 1, -1, 1, 1).expand(2, 1, -1, *kept)
    found = blur2d(x, taps, stride, pad_mode).numpy()
    expected = loop_blur(x.numpy(), everywhere.numpy(), stride, pad_mode)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_accumulated_in_float32_and_rounded_once(dtype):
    x = torch.randn(1, 4, 9, 9).to(dtype)
    taps = torch.randn(1, 2, 25, 5, 5).softmax(2)
    exact = adaptive_blur2d(x.float(), taps, backend="reference")
    torch.testing.assert_close(
        adaptive_blur2d(x, taps, backend="reference"), exact.to(dtype), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("taps_shape", "message"),
    [
        ((1, 2, 9, 4, 4), r"taps of shape \(1, 2, 9, 4, 4\) do not fit .* expected \(1, 2, 9, 3"),
        ((1, 3, 9, 3, 3), "groups dividing 4 channels"),
        ((2, 2, 9, 3, 3), r"expected \(1, 2, 9, 3, 3\)"),
        ((1, 2, 8, 3, 3), "8 taps are not k²"),
    ],
)
def test_shapes_that_do_not_fit_are_named(taps_shape, message):
    with pytest.raises(ValueError, match=message):
        adaptive_blur2d(torch.zeros(1, 4, 6, 6), torch.zeros(taps_shape))
