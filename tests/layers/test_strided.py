"""Dense versions of pools and mergings, subsampled, against the strided originals."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from aa_plugins.layers import strided
from aa_plugins.layers.subsample import Subsample


def dense(module: nn.Module, mixin: type[strided.Filtered]) -> nn.Module:
    converted, stride = copy.deepcopy(module), strided.stride_of(module)
    strided.make_dense(converted)
    strided.convert(converted, mixin, Subsample(stride))
    return converted


def strided_output(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    try:
        return module(x)
    except RuntimeError:
        assume(False)  # the map is smaller than the window
        raise


@st.composite
def windows(draw: st.DrawFn) -> dict:
    """Kernel, stride and padding that torch accepts: at most half a window of padding."""
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    square = draw(st.booleans())
    return {
        "kernel_size": kernel[0] if square else kernel,
        "padding": padding[0] if square else padding,
        "stride": draw(st.integers(2, 4)),
        "ceil_mode": draw(st.booleans()),
    }


SIZES = st.tuples(st.integers(1, 17), st.integers(1, 17))


@given(options=windows(), dilation=st.integers(1, 2), size=SIZES)
@settings(max_examples=120, deadline=None)
def test_max_pool(options, dilation, size):
    pool = nn.MaxPool2d(**options, dilation=dilation)
    x = torch.randn(2, 3, *size)
    expected = strided_output(pool, x)
    assert torch.equal(dense(pool, strided.FilterAfterMaxPool)(x), expected)


@given(
    options=windows(),
    count_include_pad=st.booleans(),
    divisor=st.sampled_from([None, 1, 3]),
    size=SIZES,
)
@settings(max_examples=120, deadline=None)
def test_average_pool(options, count_include_pad, divisor, size):
    options |= {"count_include_pad": count_include_pad, "divisor_override": divisor}
    pool = nn.AvgPool2d(**options)
    x = torch.randn(2, 3, *size)
    expected = strided_output(pool, x)
    found = dense(pool, strided.FilterAfterAvgPool)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@given(
    kernel=st.integers(1, 5),
    stride=st.integers(2, 4),
    padding=st.integers(0, 3),
    size=SIZES,
    mixin=st.sampled_from([strided.FilterAfter, strided.FilterAfterReLU]),
)
@settings(max_examples=60, deadline=None)
def test_convolution(kernel, stride, padding, size, mixin):
    conv = nn.Conv2d(3, 4, kernel, stride, padding)
    x = torch.randn(2, 3, *size)
    expected = strided_output(conv, x)
    found = dense(conv, mixin)(x)
    if mixin is strided.FilterAfterReLU:
        expected = expected.relu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_pointwise_convolution_reads_a_filtered_map():
    conv = nn.Conv2d(3, 4, 1, stride=2)
    x = torch.randn(2, 3, 9, 12)
    torch.testing.assert_close(dense(conv, strided.FilterBefore)(x), conv(x))


def test_partial_windows_at_infinity_never_win():
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    x = torch.full((1, 1, 6, 6), -5.0)
    y = dense(pool, strided.FilterAfterMaxPool)(x)
    assert torch.equal(y, F.max_pool2d(x, 3, 2, ceil_mode=True)) and (y == -5).all()


def test_stride_must_be_the_same_on_both_axes():
    assert strided.stride_of(nn.MaxPool2d(3, (2, 2))) == 2
    assert strided.stride_of(nn.ReLU()) == 1
    with pytest.raises(ValueError, match=r"stride=\(1, 2\) differs between the axes"):
        strided.stride_of(nn.Conv2d(3, 3, 3, stride=(1, 2)))
