"""FilterBankPool2d: every predicted kernel is low-pass by construction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from aa_plugins import BlurPool2d, FilterBankPool2d

BANKS = st.sampled_from([(1, 3), (1, 3, 5), (3, 5), (1, 3, 5, 7), (1, 7)])


def wild(layer: FilterBankPool2d) -> FilterBankPool2d:
    """Logits of any size: a few members win, most mixtures are uneven."""
    nn.init.normal_(layer.norm.weight, std=3)
    nn.init.normal_(layer.norm.bias, std=3)
    if layer.gate is not None:
        nn.init.uniform_(layer.gate, -3, 3)
    return layer.eval()


@given(taps=BANKS, init=st.sampled_from(["binomial", "identity", "paper"]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_kernel_is_zero_phase_and_its_response_falls_from_one(taps, init, seed):
    torch.manual_seed(seed)
    layer = wild(FilterBankPool2d(8, taps, groups=4, init=init))
    predicted = layer.predict(torch.randn(1, 8, 7, 7))
    k = layer.kernel_size
    kernels = predicted.permute(0, 1, 3, 4, 2).reshape(-1, k, k).double()
    assert (kernels - kernels.flip(1, 2)).abs().max() < 1e-6  # no phase but 0 and π
    padded = torch.zeros(len(kernels), 32, 32, dtype=torch.float64)
    padded[:, :k, :k] = kernels
    spectrum = torch.fft.fft2(padded.roll((-(k // 2), -(k // 2)), (1, 2)))
    assert spectrum.imag.abs().max() < 1e-6
    response = spectrum.real[:, :17, :17]  # from 0 to the Nyquist limit on both axes
    assert (response[:, 0, 0] - 1).abs().max() < 1e-6
    assert response.min() > -1e-6 and response.max() < 1 + 1e-6
    assert response.diff(dim=1).max() < 1e-6 and response.diff(dim=2).max() < 1e-6


@pytest.mark.parametrize("taps", [(1, 3, 5), (3, 5, 7)])
def test_the_response_at_the_nyquist_limit_is_the_weight_of_the_identity(taps):
    torch.manual_seed(0)
    layer = wild(FilterBankPool2d(8, taps, groups=4, init="paper"))
    x = torch.randn(1, 8, 7, 7)
    kernels = layer.predict(x).movedim(2, -1).unflatten(-1, (taps[-1], taps[-1]))
    alternating = (-1.0) ** torch.arange(taps[-1])
    sign = alternating[taps[-1] // 2]
    response = sign * (kernels.sum(-2) * alternating).sum(-1)  # ω = π across, 0 down
    expected = layer.logits(x).softmax(2)[:, :, 0] if taps[0] == 1 else torch.zeros(())
    torch.testing.assert_close(response, expected.expand_as(response), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("taps", "start"), [((1, 3, 5), 3), ((3, 5, 7), 3), ((1, 5, 7), 5)])
def test_binomial_start_is_the_fixed_blur(taps, start):
    layer, x = FilterBankPool2d(8, taps).eval(), torch.rand(2, 8, 9, 11)
    nn.init.normal_(layer.norm.weight)
    torch.testing.assert_close(layer(x), BlurPool2d(8, start)(x))


def test_identity_start_is_plain_subsampling():
    x = torch.randn(2, 8, 9, 11)
    assert torch.equal(FilterBankPool2d(8, stride=3, init="identity").eval()(x), x[..., ::3, ::3])


def test_paper_start_mixes_the_members_evenly_on_average():
    layer = FilterBankPool2d(8, (1, 3, 5), init="paper").eval()
    layer.conv.weight.data.zero_()
    kernel = layer.predict(torch.randn(1, 8, 5, 5))[0, 0, :, 0, 0]
    torch.testing.assert_close(kernel, layer.members(kernel).mean(0))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("init", ["binomial", "identity"])
def test_gradients_of_input_and_every_parameter(perturb, training, init):
    layer = perturb(FilterBankPool2d(4, groups=2, init=init, dtype=torch.float64)).train(training)
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, dict(zip(names, parameters)), (x,))

    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("taps", [(3,), (3, 3), (5, 3), (1, 2), (), (3, 9), (-1, 3)])
def test_errors_name_value_and_remedy(taps):
    with pytest.raises(ValueError, match=r"taps=\(.*(rising: e.g. \(1, 3, 5\)|choose from 1, 3)"):
        FilterBankPool2d(8, taps)
