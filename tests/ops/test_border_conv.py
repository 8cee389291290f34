"""The predictor's convolution against padding and convolving, with every gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aa_plugins.ops import border_conv, geometry
from aa_plugins.ops.border_conv import _BorderConv, border_conv2d
from aa_plugins.ops.geometry import pad2d

PAD_MODES = ["reflect", "replicate", "zeros", "circular"]


@pytest.fixture
def every_image_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "LARGE", 1)


@settings(deadline=None, max_examples=60)
@given(
    pad_mode=st.sampled_from(PAD_MODES),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 5),
    fewest_channels=st.sampled_from([1, 2, 256]),
)
def test_equals_padding_and_convolving(
    pad_mode: str,
    kernel_size: int,
    stride: int,
    height: int,
    width: int,
    channels: int,
    fewest_channels: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "LARGE", 1)
        patch.setattr(border_conv, "LARGEST_COPY", 1)
        patch.setattr(border_conv, "FEWEST_CHANNELS", fewest_channels)
        generator = torch.Generator().manual_seed(height * 16 + width)
        x = torch.randn(2, channels, height, width, generator=generator, requires_grad=True)
        weight = torch.randn(3, channels, kernel_size, kernel_size, generator=generator)
        weight.requires_grad_()
        found = border_conv2d(x, weight, None, stride, pad_mode)
        if min(height, width) >= kernel_size:
            assert "BorderConv" in type(found.grad_fn).__name__
        expected = F.conv2d(pad2d(x, kernel_size, pad_mode), weight, stride=stride)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            bias = torch.arange(3.0)
            inferred = border_conv2d(x, weight, bias, stride, pad_mode)
            shifted = expected + bias.view(3, 1, 1)
            torch.testing.assert_close(inferred, shifted, rtol=1e-4, atol=1e-4)
        grad = torch.randn(expected.shape, generator=generator)
        for a, b in zip(
            torch.autograd.grad(found, (x, weight), grad),
            torch.autograd.grad(expected, (x, weight), grad),
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("every_image_is_large")
@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded"])
def test_gradients_of_views(layout: str) -> None:
    """With uninitialised memory poisoned, so that whatever stays unwritten shows."""
    x = torch.randn(2, 4, 7, 6)
    x = {
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": torch.cat((x, x), 3)[..., :6],
        "expanded": x[:1].expand(2, -1, -1, -1),
    }[layout].requires_grad_()
    weight = torch.randn(3, 4, 3, 3, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        found = border_conv2d(x, weight, None, 2, "reflect")
        assert "BorderConv" in type(found.grad_fn).__name__
        expected = F.conv2d(pad2d(x, 3), weight, stride=2)
        grad = torch.randn_like(found)
        for a, b in zip(*(torch.autograd.grad(y, (x, weight), grad) for y in (found, expected))):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    finally:
        torch.use_deterministic_algorithms(False)


def test_gradient_of_gradient() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return _BorderConv.apply(x, weight, 2, "reflect")

    assert torch.autograd.gradcheck(convolve, (x, weight))
    assert torch.autograd.gradgradcheck(convolve, (x, weight))


@pytest.mark.usefixtures("every_image_is_large")
def test_only_what_is_wanted_gets_a_gradient() -> None:
    x, weight = torch.randn(2, 4, 6, 7), torch.randn(3, 4, 3, 3, requires_grad=True)
    found = border_conv2d(x, weight, None, 2, "reflect")
    expected = F.conv2d(pad2d(x, 3), weight, stride=2)
    grad = torch.randn_like(found)
    (a,), (b,) = (torch.autograd.grad(y, weight, grad) for y in (found, expected))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    x.requires_grad_()
    found = border_conv2d(x, weight.detach(), None, 2, "reflect")
    expected = F.conv2d(pad2d(x, 3), weight.detach(), stride=2)
    (a,), (b,) = (torch.autograd.grad(y, x, grad) for y in (found, expected))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("every_image_is_large")
def test_autocast_channels_last_and_groups() -> None:
    weight = torch.randn(4, 8, 3, 3, requires_grad=True)
    x = torch.randn(2, 8, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert border_conv2d(x, weight, None, 2, "reflect").dtype == torch.bfloat16
    last = x.contiguous(memory_format=torch.channels_last)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            y = border_conv2d(last, weight, None, 2, "reflect")
            assert y.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(y, F.conv2d(pad2d(x, 3), weight, stride=2))
    depthwise = torch.randn(8, 1, 3, 3)
    with torch.no_grad():
        y = border_conv2d(x, depthwise, None, 2, "reflect", groups=8)
    torch.testing.assert_close(y, F.conv2d(pad2d(x, 3), depthwise, stride=2, groups=8))


@pytest.mark.usefixtures("every_image_is_large")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2, 4, 7, 8, dtype=dtype), torch.randn(3, 4, 3, 3, dtype=dtype)
    with torch.no_grad():
        found = border_conv2d(x, weight, None, 2, "reflect")
    expected = F.conv2d(pad2d(x, 3), weight, stride=2)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found,
        expected,
        rtol=0.05 if dtype == torch.bfloat16 else 1e-6,
        atol=0.2 if dtype == torch.bfloat16 else 1e-6,
    )


@pytest.mark.usefixtures("every_image_is_large")
def test_what_is_traced_or_exported_at_one_size_runs_at_another() -> None:
    class Convolution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 4, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return border_conv2d(x, self.weight, None, 2, "replicate")

    module, example, x = Convolution().eval(), torch.randn(1, 4, 10, 12), torch.randn(1, 4, 9, 17)
    sizes = {"x": {2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}}
    with torch.no_grad():
        expected = module(x)
        traced = torch.jit.trace(module, example)
        exported = torch.export.export(module, (example,), dynamic_shapes=sizes).module()
        for found in (traced(x), exported(x)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
