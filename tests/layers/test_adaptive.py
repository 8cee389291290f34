"""AdaptiveBlurPool2d: what it starts as, the published formula, and its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve
from torch import nn
from torch.func import functional_call

from aa_plugins import AdaptiveBlurPool2d
from aa_plugins.layers import filters_of

SIZES = st.tuples(st.integers(1, 11), st.integers(1, 11))
KERNELS = st.sampled_from([3, 5, 7])


def published(layer: AdaptiveBlurPool2d, x: torch.Tensor) -> torch.Tensor:
    """Zou et al.: predict and filter everywhere on the unfolded map, then keep every s-th row."""
    n, channels, height, width = x.shape
    k, groups = layer.kernel_size, layer.groups
    padded = F.pad(x, (k // 2,) * 4, mode="reflect")
    logits = layer.norm(F.conv2d(padded, layer.conv.weight))
    if layer.normalize == "joint":
        weights = logits.softmax(1)
    else:
        weights = logits.view(n, groups, k * k, height, width).softmax(2)
    weights = weights.reshape(n, groups, 1, k * k, height * width)
    patches = F.unfold(padded, k).view(n, groups, channels // groups, k * k, height * width)
    filtered = (patches * weights).sum(3).view(n, channels, height, width)
    return filtered[:, :, :: layer.stride, :: layer.stride]


@pytest.mark.parametrize("normalize", ["joint", "group"])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("size", [(16, 16), (9, 14), (15, 7)])
def test_reproduces_the_published_formula(perturb, normalize, kernel_size, size):
    layer = AdaptiveBlurPool2d(16, kernel_size, normalize=normalize, init="paper")
    perturb(layer).eval()
    x = torch.randn(2, 16, *size)
    torch.testing.assert_close(layer(x), published(layer, x), rtol=1e-5, atol=1e-5)


def test_joint_normalisation_shares_a_gain_of_one_between_the_groups():
    layer = AdaptiveBlurPool2d(16, groups=8, normalize="joint", init="paper").eval()
    taps = layer.predict(torch.randn(2, 16, 9, 9))
    torch.testing.assert_close(taps.sum((1, 2)), torch.ones(2, 5, 5))


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_binomial_start_is_the_depthwise_binomial_convolution(kernel_size, stride):
    layer = AdaptiveBlurPool2d(16, kernel_size, stride, init="binomial").eval()
    layer.norm.running_mean.uniform_(-1, 1)
    layer.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 16, 13, 10)
    row = np.array([1.0])
    for _ in range(kernel_size - 1):
        row = np.convolve(row, [0.5, 0.5])
    # scipy calls a reflection that does not repeat the border pixel "mirror".
    kernel = np.outer(row, row)[None, None]
    expected = convolve(x.double().numpy(), kernel, mode="mirror")[:, :, ::stride, ::stride]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-6)


@given(size=SIZES, kernel_size=KERNELS, stride=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_identity_start_is_plain_subsampling(size, kernel_size, stride):
    layer = AdaptiveBlurPool2d(8, kernel_size, stride, init="identity")
    for tensor in (layer.conv.weight, layer.norm.weight, layer.norm.bias, layer.prior):
        nn.init.normal_(tensor)
    x = torch.randn(2, 8, *size)
    assert torch.equal(layer.eval()(x), x[:, :, ::stride, ::stride])


def test_paper_start_is_a_kaiming_predictor_and_a_unit_norm():
    layer = AdaptiveBlurPool2d(64, 3, groups=8, init="paper")
    assert layer.conv.weight.std().item() == pytest.approx((2 / (72 * 9)) ** 0.5, rel=0.03)
    assert (layer.norm.weight == 1).all() and (layer.norm.bias == 0).all()
    assert layer.gate is None


@pytest.mark.parametrize("init", ["binomial", "identity", "paper"])
def test_keys_are_those_of_the_published_layer(init):
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    keys = ["conv.weight", *(f"norm.{key}" for key in norm)]
    found = set(AdaptiveBlurPool2d(8, init=init).state_dict())
    ours = {"binomial": {"prior"}, "identity": {"prior", "gate"}, "paper": set()}
    assert found == set(keys) | ours[init]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_weight_decay_draws_a_filter_to_its_start(optimizer):
    layer = AdaptiveBlurPool2d(8)
    start = layer.predict(torch.randn(1, 8, 6, 6)).clone()
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    steps = optimizer(layer.parameters(), lr=0.1, weight_decay=1.0)
    for _ in range(100):
        layer(torch.randn(1, 8, 6, 6)).mul(0).sum().backward()
        steps.step()
        steps.zero_grad()
    torch.testing.assert_close(layer.predict(torch.randn(1, 8, 6, 6)), start, atol=1e-3, rtol=0)


@given(size=SIZES, kernel_size=KERNELS, stride=st.integers(1, 4), groups=st.sampled_from([1, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_gain_is_one_for_every_group_on_any_map(size, kernel_size, stride, groups):
    layer = AdaptiveBlurPool2d(8, kernel_size, stride, groups, init="identity").eval()
    nn.init.normal_(layer.gate)
    nn.init.normal_(layer.norm.weight)
    x = torch.randn(2, 8, *size)
    taps = layer.predict(x)
    kept = (-(-size[0] // stride), -(-size[1] // stride))
    assert taps.shape == (2, groups, kernel_size**2, *kept)
    torch.testing.assert_close(taps.sum(2), torch.ones(2, groups, *kept))
    flat = torch.randn(2, 8, 1, 1).expand(2, 8, *size)
    torch.testing.assert_close(layer(flat), flat[:, :, : kept[0], : kept[1]])


def test_groups_are_blocks_of_neighbouring_channels():
    layer = AdaptiveBlurPool2d(6, groups=2, stride=1).eval()
    shift = torch.zeros(2, 9)
    shift[0, 4], shift[1, 5] = 50.0, 50.0  # group 0 keeps its pixel, group 1 takes its neighbour
    layer.norm.bias.data = shift.flatten()
    x = torch.randn(1, 6, 5, 5)
    y = layer(x)
    torch.testing.assert_close(y[:, :3], x[:, :3])
    torch.testing.assert_close(y[:, 3:, :, :-1], x[:, 3:, :, 1:])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("init", ["binomial", "identity", "paper"])
@pytest.mark.parametrize(("stride", "kernel_size"), [(2, 3), (1, 3), (3, 5)])
def test_gradients_of_input_and_every_parameter(perturb, training, init, stride, kernel_size):
    layer = AdaptiveBlurPool2d(4, kernel_size, stride, groups=2, init=init, dtype=torch.float64)
    perturb(layer).train(training)
    names = [name for name, _ in layer.named_parameters()]
    assert len(names) == 3 + (init == "identity")
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, dict(zip(names, parameters)), (x,))

    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def test_gradients_of_joint_normalisation(perturb):
    layer = AdaptiveBlurPool2d(4, groups=2, normalize="joint", init="paper", dtype=torch.float64)
    perturb(layer)
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, dict(zip(names, parameters)), (x,))

    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_035", "gernet_s", "cspresnet50"])
def test_is_a_layer_for_timm_and_survives_its_initialisation(name):
    model = timm.create_model(name, aa_layer=AdaptiveBlurPool2d, num_classes=3).eval()
    layers = [layer for _, layer in filters_of(model)]
    assert len(layers) >= 4
    for layer in layers:
        x = torch.randn(1, layer.channels, 6, 6)
        fresh = AdaptiveBlurPool2d(layer.channels).eval()
        torch.testing.assert_close(layer(x), fresh(x))
    assert model(torch.randn(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4 is even, .*choose 3, 5 or 7"),
        ({"kernel_size": 1}, "kernel_size=1 is out of range"),
        ({"kernel_size": 9}, "kernel_size=9 is out of range"),
        ({"groups": 3}, r"groups=3 does not divide channels=8: choose a divisor of 8"),
        ({"groups": 0}, "groups=0 must be a positive whole number"),
        ({"channels": -8}, "channels=-8 must be a positive whole number"),
        ({"stride": 1.5}, "stride=1.5 must be a positive whole number"),
        ({"normalize": "layer"}, "normalize='layer' is unknown: choose one of group, joint"),
        ({"init": "zeros"}, "init='zeros' is unknown: choose one of binomial, identity, paper"),
        ({"normalize": "joint"}, 'normalize="joint".* init=\'binomial\' .*use init="paper"'),
        ({"pad_mode": "mirror"}, "pad_mode='mirror' is unknown: choose one of reflect"),
    ],
)
def test_errors_name_value_and_remedy(kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message):
        AdaptiveBlurPool2d(**{"channels": 8, **kwargs})


def test_representation_tells_the_options():
    text = repr(AdaptiveBlurPool2d(8, 5, 3, 4, "joint", "paper", "zeros"))
    for option in ("8, kernel_size=5, stride=3, groups=4", "'paper'", "'zeros'", "'joint'"):
        assert option in text
