"""TrainedBlurPool2d against the fixed blur it starts as, and a convolution a channel."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aa_plugins import AAConfig, BlurPool2d
from aa_plugins.layers import TrainedBlurPool2d, filters_of, fuse, reset_filters
from aa_plugins.layers.kinds import build_filter
from aa_plugins.ops.geometry import pad2d

PAD_MODES = ["reflect", "replicate", "zeros", "circular"]


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("pad_mode", PAD_MODES)
@pytest.mark.parametrize("size", [(16, 16), (9, 14), (1, 3)])
def test_starts_as_the_fixed_blur(kernel_size, pad_mode, size):
    x = torch.randn(2, 6, *size)
    expected = BlurPool2d(6, kernel_size, 2, pad_mode)(x)
    layer = TrainedBlurPool2d(6, kernel_size, 2, groups=3, pad_mode=pad_mode)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_identity_start_subsamples(kernel_size, stride):
    x = torch.randn(2, 4, 9, 8)
    layer = TrainedBlurPool2d(4, kernel_size, stride, groups=2, init="identity")
    torch.testing.assert_close(layer(x), x[..., ::stride, ::stride])


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_channel_is_convolved_with_the_kernel_of_its_group(stride):
    layer = TrainedBlurPool2d(6, 3, stride, groups=2)
    nn.init.normal_(layer.change)
    x = torch.randn(2, 6, 7, 9)
    padded = pad2d(x, 3)
    maps = [
        F.conv2d(padded[:, c : c + 1], layer.taps[c // 3][None, None], stride=stride)
        for c in range(6)
    ]
    torch.testing.assert_close(layer(x), torch.cat(maps, 1))
    taps = layer.predict(x)
    assert taps.shape == (2, 2, 9, -(-7 // stride), -(-9 // stride))
    torch.testing.assert_close(taps[1, 1, :, -1, -1], layer.taps[1].flatten())


def test_gradients_of_taps_and_input():
    layer = TrainedBlurPool2d(4, 4, groups=2, dtype=torch.float64)
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    change = torch.randn_like(layer.change).requires_grad_()
    call = lambda x, change: torch.func.functional_call(layer, {"change": change}, x)  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, change))


def test_weight_decay_draws_it_to_the_fixed_blur():
    layer, x = TrainedBlurPool2d(2, groups=1), torch.randn(1, 2, 8, 8)
    nn.init.normal_(layer.change)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, weight_decay=1.0)
    for _ in range(30):
        (layer(x) * 0).sum().backward()
        optimizer.step()
    torch.testing.assert_close(layer(x), BlurPool2d(2)(x), rtol=0, atol=1e-5)


def test_one_kernel_a_site_or_a_channel_by_the_number_of_groups():
    sizes = {g: build_filter(AAConfig(filter="trained", groups=g), 12, 2) for g in (1, 8, 1000)}
    assert {g: tuple(layer.taps.shape) for g, layer in sizes.items()} == {
        1: (1, 3, 3),
        8: (6, 3, 3),
        1000: (12, 3, 3),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    layer, x = TrainedBlurPool2d(4, groups=1), torch.rand(1, 4, 8, 8, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y = layer(x)
    torch.testing.assert_close(y.float(), layer(x), rtol=1e-2, atol=1e-2)
    y.float().sum().backward()
    assert torch.isfinite(layer.change.grad).all() and layer.change.grad.abs().min() > 0


def test_is_a_filter_to_hosts_and_has_nothing_to_fold():
    model = nn.Sequential(TrainedBlurPool2d(4, groups=1)).eval()
    assert [name for name, _ in filters_of(model)] == ["0"] and fuse(model) == []
    model[0].change.data.fill_(3)
    reset_filters(model)
    assert model[0].taps.sum().item() == pytest.approx(1)
    with torch.device("meta"):
        empty = nn.Sequential(TrainedBlurPool2d(4, groups=1))
    torch.testing.assert_close(empty.to_empty(device="cpu")[0].taps, model[0].taps)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"groups": 3}, "groups=3 does not divide channels=4"),
        ({"init": "paper"}, "init='paper' is unknown: choose one of binomial, identity"),
        ({"kernel_size": 8}, "kernel_size=8 is out of range"),
    ],
)
def test_errors_name_value_and_remedy(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TrainedBlurPool2d(4, **{"groups": 2, **kwargs})
