"""The predictor's convolution against padding and convolving, with every gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from aa_plugins.ops.border_conv import _BorderConv, border_conv2d
from aa_plugins.ops.geometry import pad2d


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros", "circular"])
@pytest.mark.parametrize(
    "kernel_size, stride, size", [(3, 2, (8, 9)), (3, 1, (2, 1)), (7, 3, (9, 5))]
)
def test_equals_padding_and_convolving(pad_mode, kernel_size, stride, size) -> None:
    if pad_mode == "circular" and min(size) < kernel_size // 2:
        pytest.skip("nothing to wrap")
    x = torch.randn(2, 6, *size, requires_grad=True)
    weight = torch.randn(5, 6, kernel_size, kernel_size, requires_grad=True)
    found = border_conv2d(x, weight, None, stride, pad_mode)
    assert "BorderConv" in type(found.grad_fn).__name__
    expected = F.conv2d(pad2d(x, kernel_size, pad_mode), weight, stride=stride)
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, (x, weight), grad),
        torch.autograd.grad(expected, (x, weight), grad),
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradient_of_gradient() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return _BorderConv.apply(x, weight, 2, "reflect")

    assert torch.autograd.gradcheck(convolve, (x, weight))
    assert torch.autograd.gradgradcheck(convolve, (x, weight))


def test_autocast_and_channels_last_take_the_plain_path() -> None:
    weight = torch.randn(4, 8, 3, 3, requires_grad=True)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert border_conv2d(x, weight, None, 2, "reflect").dtype == torch.bfloat16
    last = x.contiguous(memory_format=torch.channels_last)
    y = border_conv2d(last, weight, None, 2, "reflect")
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_large_images_are_convolved_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(3, 4, 7, 8), torch.randn(5, 4, 3, 3)
    expected = border_conv2d(x, weight, None, 2, "reflect")
    monkeypatch.setattr("aa_plugins.ops.border_conv.LARGE", 1)
    with torch.no_grad():
        found = border_conv2d(x, weight, None, 2, "reflect")
    torch.testing.assert_close(found, expected)
