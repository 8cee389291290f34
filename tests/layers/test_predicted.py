"""What both predicted filters do alike: gate, learning, precision, layout, copies, compilers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from aa_plugins import AdaptiveBlurPool2d, BlurPool2d, FilterBankPool2d
from aa_plugins.layers import filters_of, reset_filters
from aa_plugins.layers.predicted import fold


def blurred_bank(channels: int, **options: object) -> FilterBankPool2d:
    return FilterBankPool2d(channels, predictor_input="blurred", **options)


KINDS = [AdaptiveBlurPool2d, FilterBankPool2d, blurred_bank]
INITS = ["binomial", "identity", "paper"]


def test_gate_is_folded_into_the_unit_interval():
    gate = torch.tensor([0.0, 0.25, 1.0, 1.25, 2.0, 2.5, -0.25, -1.0, -1.75], dtype=torch.float64)
    expected = [0.0, 0.25, 1.0, 0.75, 0.0, 0.5, 0.25, 1.0, 0.25]
    assert fold(gate).tolist() == expected
    anywhere = fold(torch.linspace(-9, 9, 4001))
    assert anywhere.min() >= 0 and anywhere.max() <= 1


def test_gate_has_a_gradient_everywhere_and_opens_whichever_way_it_steps():
    gate = torch.linspace(-3, 3, 601, requires_grad=True)
    (slope,) = torch.autograd.grad(fold(gate).sum(), gate)
    assert (slope.abs() == 1).all()
    assert fold(torch.tensor(0.01)) == fold(torch.tensor(-0.01)) == pytest.approx(0.01)


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_moved_after_two_steps(kind, init, optimiser):
    torch.manual_seed(0)
    layer = kind(8, init=init, dtype=torch.float64)  # the second step is too short for float32
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    steps = optimiser(layer.parameters(), lr=0.01, weight_decay=0)
    for _ in range(2):
        x = torch.randn(4, 8, 9, 9, dtype=torch.float64)
        loss = (layer(x) - torch.randn(4, 8, 5, 5)).square().mean()
        steps.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
        steps.step()
    for name, parameter in layer.named_parameters():
        assert (parameter != before[name]).all(), name


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", KINDS)
def test_reset_brings_the_start_back(perturb, kind, init):
    layer = kind(8, init=init).eval()
    x = torch.randn(1, 8, 6, 6)
    torch.manual_seed(1)
    layer.reset_parameters()
    expected = layer(x)
    perturb(layer)
    assert not torch.allclose(layer(x), expected)
    torch.manual_seed(1)
    reset_filters(nn.Sequential(layer))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_works_under_autocast(perturb, kind, dtype):
    layer = perturb(kind(8, init="identity"))
    x = torch.randn(2, 8, 9, 9, requires_grad=True)
    expected = layer.eval()(x)
    layer.train()
    with torch.autocast("cpu", dtype):
        y = layer(x)
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())
    layer.eval()
    with torch.autocast("cpu", dtype):
        running = layer(x.to(dtype))
    assert running.dtype == dtype
    layer.norm.reset_running_stats()
    perturb(layer)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_moves_between_precisions(perturb, kind, dtype):
    layer, x = perturb(kind(8, init="identity")).eval(), torch.randn(2, 8, 9, 9)
    expected = layer(x)
    y = layer.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_layout_changes_nothing(perturb, kind):
    layer = perturb(kind(8, init="identity")).eval()
    x = torch.randn(2, 8, 9, 11)
    last = layer(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, layer(x))
    assert last.is_contiguous(memory_format=torch.channels_last)
    strided = torch.randn(2, 8, 11, 18)[..., ::2].transpose(2, 3)
    torch.testing.assert_close(layer(strided), layer(strided.contiguous()))


@pytest.mark.parametrize("pad_mode", ["reflect", "replicate", "zeros", "circular"])
@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 1), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_small_maps_work(perturb, kind, size, pad_mode):
    layer = perturb(kind(8, stride=2, init="identity", pad_mode=pad_mode)).eval()
    x = torch.randn(2, 8, *size, requires_grad=True)
    y = layer(x)
    assert y.shape == (2, 8, -(-size[0] // 2), -(-size[1] // 2))
    y.sum().backward()
    assert x.grad.isfinite().all()
    if size == (1, 1) and pad_mode != "zeros":
        torch.testing.assert_close(y, x)


def by_pickle(layer: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(layer))


def by_file(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = type(layer)(8, init="identity", predictor_input=layer.predictor_input)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other.eval()


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, by_file])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_compute_the_same(perturb, kind, copied):
    layer, x = perturb(kind(8, init="identity")).eval(), torch.randn(1, 8, 7, 7)
    torch.testing.assert_close(copied(layer)(x), layer(x), rtol=0, atol=0)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", KINDS)
def test_is_built_on_meta_and_started_later(kind, init):
    layer = kind(8, init=init, device="meta")
    assert layer(torch.empty(2, 8, 7, 7, device="meta")).shape == (2, 8, 4, 4)
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    fresh = kind(8, init=init)
    fresh.load_state_dict(layer.state_dict())
    x = torch.randn(1, 8, 7, 7)
    torch.testing.assert_close(layer.eval()(x), fresh.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_compiles_in_one_graph(perturb, kind, backend):
    layer = perturb(kind(8, init="identity"))
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    x = torch.randn(2, 8, 9, 9)
    expected, found = layer(x), compiled(x)
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    for ours, theirs in zip(twin.parameters(), layer.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [AdaptiveBlurPool2d, FilterBankPool2d])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_predictor_of_blurred_input_sees_nothing_else(perturb, kind, stride):
    layer = perturb(kind(8, stride=stride, init="paper", predictor_input="blurred")).eval()
    x = torch.randn(2, 8, 9, 11)
    seen = BlurPool2d(8, 3, stride)(x)
    dense = kind(8, stride=1, init="paper")
    dense.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer.predict(x), dense.eval().predict(seen))
    assert layer(x).shape == seen.shape
    # What alternates from pixel to pixel is what aliases: the predictor doesn't see it.
    inside = (slice(None), slice(None), slice(None), slice(2, -2), slice(2, -2))
    alternating = x + (1 - 2 * ((torch.arange(9)[:, None] + torch.arange(11)) % 2))
    torch.testing.assert_close(layer.predict(alternating)[inside], layer.predict(x)[inside])


def test_filters_are_found_by_name():
    model = nn.Sequential(nn.Sequential(AdaptiveBlurPool2d(8)), FilterBankPool2d(8), nn.ReLU())
    assert [name for name, _ in filters_of(model)] == ["0.0", "1"]


@pytest.mark.parametrize("kind", [AdaptiveBlurPool2d, FilterBankPool2d])
def test_a_pooled_predictor_gives_one_filter_for_the_whole_image(kind, perturb):
    layer = perturb(kind(8, groups=2, predictor_input="pooled"))
    x = torch.randn(3, 8, 9, 7)
    taps = layer.predict(x)
    assert taps.shape[0] == 3 and taps.shape[3:] == (5, 4)
    torch.testing.assert_close(taps, taps[..., :1, :1].expand_as(taps))
    assert (taps[0] - taps[1]).abs().max() > 1e-3
    rolled = layer.predict(x.roll((2, 3), (2, 3)))
    torch.testing.assert_close(rolled, taps)
    layer.train()(x[:1]).sum().backward()  # one image: no statistics over a batch
    conv = layer.conv.weight.grad
    assert torch.isfinite(conv).all() and conv.abs().max() > 0


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [AdaptiveBlurPool2d, FilterBankPool2d])
def test_what_follows_may_change_its_map_in_place(kind, stride):
    layer, x = kind(8, stride=stride).train(), torch.randn(2, 8, 9, 7)
    expected = torch.relu(layer(x))
    found = torch.relu_(layer(x))
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
