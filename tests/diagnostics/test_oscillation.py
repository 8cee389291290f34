"""Oscillations, and the networks that are to tell them apart."""

from __future__ import annotations

import math

import pytest
import torch

from aa_plugins import AAConfig, antialias
from aa_plugins.diagnostics.oscillation import (
    FREQUENCIES,
    SIZE,
    fully_connected,
    oscillations,
    residual,
    told_apart,
)


def test_an_image_holds_the_frequencies_of_its_class():
    found = oscillations(2, noise=0.0, seed=3)
    assert found.images.shape == (2 * FREQUENCIES**2, 1, SIZE, SIZE)
    for label in (0, 5, 7 * 20 + 12, 399):
        image = found.images[2 * label, 0].double()
        assert int(found.labels[2 * label]) == label
        # A product of waves obeys x(n + 1) + x(n − 1) = 2 cos(π f) x(n) along each axis.
        for axis, number in ((0, label // 20), (1, label % 20)):
            around = image.narrow(axis, 2, SIZE - 2) + image.narrow(axis, 0, SIZE - 2)
            expected = 2 * math.cos(math.pi * number / 20) * image.narrow(axis, 1, SIZE - 2)
            torch.testing.assert_close(around, expected, atol=1e-4, rtol=0)


def test_noise_is_uniform_and_seeds_repeat():
    quiet, noisy = (oscillations(1, noise, seed=0) for noise in (0.0, 2.0))
    difference = noisy.images - quiet.images
    assert difference.abs().max() <= 2 and difference.std() == pytest.approx(2 / 3**0.5, rel=0.02)
    assert torch.equal(noisy.images, oscillations(1, 2.0, seed=0).images)
    assert not torch.equal(noisy.images, oscillations(1, 2.0, seed=1).images)


def test_who_tells_what_apart_is_counted_by_class():
    examples = oscillations(2, 0.0, seed=0)

    class Knows(torch.nn.Module):
        """Answers in order, and wrongly for the second image of class 41."""

        def __init__(self):
            super().__init__()
            self.answers = iter(examples.labels.clone().index_fill(0, torch.tensor(83), 0).tolist())

        def forward(self, x):
            rows = [next(self.answers) for _ in range(len(x))]
            return torch.nn.functional.one_hot(torch.tensor(rows), 400)

    found = told_apart(Knows(), examples)
    assert found[2, 1] == 0.5 and found.sum() == 399.5


@pytest.mark.parametrize("growing", [False, True])
def test_residual_networks_convert(growing):
    model = residual(2, 8, growing)
    report = antialias(model, AAConfig(filter="blur"))
    assert [site.kind for site in report.sites] == ["conv", "shortcut"] * 2
    assert model(torch.randn(2, 1, SIZE, SIZE)).shape == (2, 400)
    assert fully_connected(2, 16)(torch.randn(2, 1, SIZE, SIZE)).shape == (2, 400)
