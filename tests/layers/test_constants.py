"""Constants survive every way of building and loading a network, and every context of a call."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from aa_plugins.layers import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d

LAYERS = {
    "blur": lambda **kw: BlurPool2d(8, 5, **kw),
    "bank": lambda **kw: FilterBankPool2d(8, **kw),
    "bank, paper": lambda **kw: FilterBankPool2d(8, init="paper", **kw),
    "adaptive": lambda **kw: AdaptiveBlurPool2d(8, **kw),
    "identity": lambda **kw: AdaptiveBlurPool2d(8, init="identity", **kw),
    "blurred": lambda **kw: AdaptiveBlurPool2d(8, predictor_input="blurred", **kw),
}
X = torch.randn(2, 8, 9, 10, generator=torch.Generator().manual_seed(0))


def poisoned(layer: nn.Module) -> nn.Module:
    """What memory holds that nobody wrote."""
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    return layer


def emptied(build, state: dict) -> nn.Module:
    with torch.device("meta"):
        layer = build()
    layer = poisoned(layer.to_empty(device="cpu"))
    layer.load_state_dict(state)
    return layer


def assigned(build, state: dict) -> nn.Module:
    layer = build(device="meta")
    layer.load_state_dict(state, assign=True)
    return layer


def emptied_after_use(build, state: dict) -> nn.Module:
    layer = build()
    layer(X)
    layer = poisoned(layer.to("meta").to_empty(device="cpu"))
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("loaded", [emptied, assigned, emptied_after_use])
@pytest.mark.parametrize("name", LAYERS)
def test_a_checkpoint_is_all_that_an_empty_network_needs(name, loaded):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    found = loaded(LAYERS[name], layer.state_dict()).eval()
    torch.testing.assert_close(found(X), layer.eval()(X), rtol=0, atol=0)
    assert not any(tensor.is_meta for tensor in (*found.parameters(), *found.buffers()))


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "bank, paper"])
def test_an_emptied_filter_starts_where_no_checkpoint_holds_it(name):
    """As where the checkpoint is that of the plain network."""
    with torch.device("meta"):
        layer = nn.Sequential(LAYERS[name]())
    layer.to_empty(device="cpu")
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not module.running_mean.any()
    torch.testing.assert_close(layer.eval()(X), LAYERS[name]().eval()(X))


@pytest.mark.parametrize("name", LAYERS)
def test_no_context_leaves_anything_behind(name):
    """Fake tensors, inference mode, a compiler: the next ordinary call is an ordinary one."""
    torch.manual_seed(0)
    layer = LAYERS[name]().eval()
    expected = copy.deepcopy(layer)(X)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert copy.copy(layer)(mode.from_tensor(X)).shape == expected.shape
    with torch.inference_mode():
        layer(X)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, backend="eager")(X), expected)
    x = X.clone().requires_grad_()
    layer(x).sum().backward()
    assert x.grad.abs().sum() > 0
    torch.testing.assert_close(layer(X), expected, rtol=0, atol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(X), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_built_on_fake_tensors_shares_nothing_with_others(name):
    with FakeTensorMode():
        fake = LAYERS[name]().eval()
        fake(torch.empty(1, 8, 9, 10))
    layer = LAYERS[name]().eval()
    assert type(layer(X)) is torch.Tensor and layer(X).isfinite().all()


def test_threads_and_precisions_do_not_meet():
    layer = BlurPool2d(8, 5)
    inputs = [X.to(dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)] * 8
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(layer, inputs))
    for x, y in zip(inputs, found):
        assert y.dtype == x.dtype
        torch.testing.assert_close(y, BlurPool2d(8, 5)(x), rtol=0, atol=0)


def test_a_new_device_or_dtype_has_constants_of_its_own():
    layer = FilterBankPool2d(8).eval()
    expected = layer(X)
    twice = copy.deepcopy(layer).double()
    torch.testing.assert_close(twice(X.double()).float(), expected, rtol=1e-5, atol=1e-6)
    assert layer.to("meta")(X.to("meta")).is_meta
