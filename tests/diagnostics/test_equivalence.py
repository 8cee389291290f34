"""The comparison sees what default initialisations hide."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from aa_plugins.diagnostics.equivalence import perturb, relative_difference


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "test_convnext3"])
def test_no_path_is_dead_after_perturbing(name):
    model = timm.create_model(name, num_classes=3)
    perturb(model, torch.randn(2, 3, 64, 64))
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    model(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, key


def test_default_initialisation_does_hide():
    """What rousing is for: a fresh ResNet doesn't feel its main path, so a bug there is unseen."""
    model = timm.create_model("resnet10t").eval()
    broken = copy.deepcopy(model)
    nn.init.zeros_(broken.layer2[0].conv1.weight)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), broken(x))
        perturb(model, torch.randn(2, 3, 64, 64))
        broken = copy.deepcopy(model)
        nn.init.zeros_(broken.layer2[0].conv1.weight)
        assert relative_difference([broken(x)], [model(x)]) > 0.01


def test_batch_norms_are_calibrated_on_the_images():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    x = torch.randn(8, 3, 9, 9)
    perturb(model, x)
    y = model[0](x)
    torch.testing.assert_close(model[1].running_mean, y.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, y.var((0, 2, 3)))
    assert not model.training and model[1].momentum == 0.1


def test_draw_is_the_same_for_the_same_seed():
    first, second, third = (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)) for _ in range(3))
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        perturb(model, torch.zeros(1, 2), seed)
    assert torch.equal(first[1].weight, second[1].weight)
    assert not torch.equal(first[1].weight, third[1].weight)


def test_difference_is_relative_to_the_largest_value_of_each_tensor():
    found = [torch.tensor([1.0, 10.0]), torch.tensor([0.1])]
    expected = [torch.tensor([1.5, 10.0]), torch.tensor([0.125])]
    assert relative_difference(found, expected) == pytest.approx(0.2)
    assert relative_difference(expected, expected) == 0


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_nothing_is_compared_with_nothing(value):
    with pytest.raises(ValueError, match="tensor 0 can't be compared with: its largest value is"):
        relative_difference([torch.ones(2)], [torch.full((2,), value)])


def test_what_was_found_must_be_finite_and_of_the_same_shape():
    with pytest.raises(ValueError, match=r"tensor 0 is \(3,\), expected \(2,\)"):
        relative_difference([torch.ones(3)], [torch.ones(2)])
    for value in (torch.nan, torch.inf):
        found = [torch.tensor([1.0, value]), torch.ones(2)]
        assert relative_difference(found, [torch.ones(2), torch.ones(2)]) == torch.inf
    with pytest.raises(ValueError, match="zip"):
        relative_difference([torch.ones(2)], [])
