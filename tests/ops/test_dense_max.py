"""The dense maximum against torch's max-pool at stride 1."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aa_plugins.ops import dense_max2d

PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(kernel=PAIRS, dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), data=st.data())
@settings(max_examples=80, deadline=None)
def test_equals_torchs_pool_bit_by_bit(kernel, dilation, data):
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding)]
    size = [data.draw(st.integers(side, side + 9)) for side in least]
    x = torch.randn(2, 3, *size).round(decimals=1)  # with ties
    x[x > 1.5] = torch.nan
    x[x < -1.5] = -torch.inf
    expected = F.max_pool2d(x, kernel, 1, padding, dilation)
    torch.testing.assert_close(
        dense_max2d(x, kernel, padding, dilation), expected, rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
def test_keeps_dtype_and_layout(dtype, last):
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(2, 8, 9, 11).to(dtype).contiguous(memory_format=layout)
    found = dense_max2d(x, (3, 3), (1, 1), (1, 1))
    assert found.dtype == dtype and found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, F.max_pool2d(x, 3, 1, 1), rtol=0, atol=0)


def test_gradients_are_torchs_at_ties_too():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    dense_max2d(x, (3, 3), (1, 1), (1, 1)).sum().backward()
    y = torch.zeros(1, 1, 4, 4, requires_grad=True)
    F.max_pool2d(y, 3, 1, 1).sum().backward()
    assert torch.equal(x.grad, y.grad)


def test_the_input_stays_as_it_is():
    x = torch.randn(1, 2, 5, 5)
    before = x.clone()
    dense_max2d(x, (2, 1), (0, 0), (1, 1))
    assert torch.equal(x, before)
