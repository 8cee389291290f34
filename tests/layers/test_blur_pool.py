"""BlurPool2d against timm's, against plain loops over the kernel, and by its own properties."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aa_plugins import BlurPool2d

PAD_MODES = ["reflect", "replicate", "zeros", "circular"]


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_odd_kernels_equal_timms(kernel_size, stride, size):
    x = torch.randn(2, 6, *size)
    expected = timm.layers.BlurPool2d(6, kernel_size, stride)(x)
    torch.testing.assert_close(BlurPool2d(6, kernel_size, stride)(x), expected)


@pytest.mark.parametrize("kernel_size", [2, 4, 6])
def test_even_kernels_reach_further_after_than_before(kernel_size):
    impulse = torch.zeros(1, 1, 15, 15)
    impulse[0, 0, 7, 7] = 1
    line = BlurPool2d(1, kernel_size, stride=1)(impulse)[0, 0].sum(0)
    reached = line.nonzero().ravel().tolist()
    # Output i reads inputs i − ⌊(k−1)/2⌋ … i + ⌊k/2⌋, so the impulse is seen by 7 − ⌊k/2⌋ and on.
    assert reached == list(range(7 - kernel_size // 2, 7 + (kernel_size - 1) // 2 + 1))


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel_size=st.integers(2, 7),
    stride=st.integers(1, 4),
    pad_mode=st.sampled_from(PAD_MODES),
)
@settings(max_examples=60, deadline=None)
def test_sizes_round_up_and_constants_stay(size, kernel_size, stride, pad_mode):
    y = BlurPool2d(3, kernel_size, stride, pad_mode)(torch.full((1, 3, *size), 2.5))
    assert y.shape == (1, 3, -(-size[0] // stride), -(-size[1] // stride))
    if pad_mode != "zeros":
        torch.testing.assert_close(y, torch.full_like(y, 2.5))


def test_has_no_keys_so_any_checkpoint_loads():
    layer = BlurPool2d(8, 5)
    assert layer.state_dict() == {}
    assert not list(layer.parameters())


def test_is_copied_and_pickled_with_its_kernel():
    layer, x = BlurPool2d(4, 4), torch.randn(1, 4, 7, 7)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_moves_between_precisions(dtype):
    layer, x = BlurPool2d(4, 5), torch.rand(1, 4, 8, 8)
    y = layer.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), BlurPool2d(4, 5)(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_works_under_autocast(dtype):
    layer, x = BlurPool2d(4, 3), torch.rand(1, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y = layer(x)
    torch.testing.assert_close(y.float(), layer(x), rtol=1e-2, atol=1e-2)
    y.float().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_memory_layout_changes_nothing():
    layer, x = BlurPool2d(8, 4), torch.randn(2, 8, 9, 11)
    expected = layer(x)
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, expected)
    strided = torch.randn(2, 8, 11, 9).transpose(2, 3)
    torch.testing.assert_close(layer(strided), layer(strided.contiguous()))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_in_one_graph(backend):
    layer, x = BlurPool2d(4, 5), torch.randn(1, 4, 9, 8)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_is_a_layer_for_timm():
    model = timm.create_model("resnet18", aa_layer=BlurPool2d, num_classes=4).eval()
    assert sum(isinstance(module, BlurPool2d) for module in model.modules()) == 4
    theirs = timm.create_model("resnet18", aa_layer=timm.layers.BlurPool2d, num_classes=4).eval()
    theirs.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), theirs(x))


def test_gradient_of_the_input():
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(BlurPool2d(2, 4, 2, dtype=torch.float64), x)


def test_alternating_signal_is_removed():
    x = torch.ones(1, 1, 8, 8)
    x[..., ::2] = -1
    assert F.max_pool2d(x, 1, 2).abs().min() == 1  # plain subsampling sees a constant
    assert BlurPool2d(1, 3, 2)(x).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kernel_size": 1}, "kernel_size=1 is out of range: choose 2 to 7"),
        ({"kernel_size": 8}, "kernel_size=8 is out of range"),
        ({"kernel_size": 3.0}, "kernel_size=3.0 must be a positive whole number"),
        ({"stride": 0}, "stride=0 must be a positive whole number"),
        ({"channels": 0}, "channels=0 must be a positive whole number"),
        ({"pad_mode": "same"}, "pad_mode='same' is unknown: choose one of reflect"),
    ],
)
def test_errors_name_value_and_remedy(kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message):
        BlurPool2d(**{"channels": 4, **kwargs})


def test_representation_tells_the_options():
    text = repr(nn.Sequential(BlurPool2d(4, 5, 3, "zeros")))
    assert "BlurPool2d(4, kernel_size=5, stride=3, pad_mode='zeros')" in text
