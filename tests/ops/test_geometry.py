"""Index tables and folding against the padding of torch itself."""

from __future__ import annotations

import pytest
import torch

from aa_plugins.ops.geometry import fold_border, pad2d, source_index


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros", "circular"])
@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_table_says_what_padding_does(pad_mode: str, kernel_size: int, size: int) -> None:
    # Numbered from one, so that a zero is a border that comes from nowhere.
    x = torch.arange(1.0, size + 1).view(1, 1, 1, size).expand(1, 1, size, size).contiguous()
    before = (kernel_size - 1) // 2
    expected = pad2d(x, kernel_size, pad_mode)[0, 0, before]
    found = source_index(size, kernel_size, pad_mode)
    assert [i + 1 for i in found] == expected.int().tolist()


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros", "circular"])
@pytest.mark.parametrize("kernel_size", [2, 3, 7])
@pytest.mark.parametrize("size", [(3, 9), (4, 4), (2, 5), (1, 1)])
def test_folding_is_the_gradient_of_padding(pad_mode, kernel_size, size) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    padded = pad2d(x, kernel_size, pad_mode)
    grad = torch.randn_like(padded)
    (expected,) = torch.autograd.grad(padded, x, grad)
    torch.testing.assert_close(fold_border(grad, kernel_size, pad_mode), expected)
