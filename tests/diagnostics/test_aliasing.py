"""Spectra of signals whose aliasing is known."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from aa_plugins.diagnostics.aliasing import CLASSES, folds, spectrum


def tone(cycles: int, size: int = 32) -> torch.Tensor:
    """A cosine of that many cycles along the width: (1, 1, size, size)."""
    wave = torch.cos(2 * math.pi * cycles / size * torch.arange(size, dtype=torch.float64))
    return wave.expand(1, 1, size, size)


@pytest.mark.parametrize(
    ("cycles", "expected"),
    [(3, "non_aliased"), (7, "non_aliased"), (8, "tangled"), (9, "aliased"), (16, "aliased")],
)
def test_a_tone_has_the_class_of_its_frequency(cycles, expected):
    # 32 positions keep 16: the new limit is 8 cycles, where a tone meets its own mirror image.
    found = dict(zip(CLASSES, spectrum(tone(cycles), 2).classes[0].tolist()))
    bins = 1 if cycles in (8, 16) else 2
    assert found[expected] == pytest.approx(bins / 256)
    assert found["no_pass"] == pytest.approx(1 - bins / 256)


def test_two_tones_that_fall_onto_one_another_are_tangled():
    found = dict(zip(CLASSES, spectrum(tone(3) + tone(13), 2).classes[0].tolist()))
    assert found["tangled"] == pytest.approx(2 / 256)


@pytest.mark.parametrize("ratio, tangled", [(0.11, 1), (0.09, 0)])
def test_a_fold_passes_down_to_20_decibels(ratio, tangled):
    # The tones meet in phase, so the largest value of the subsampled spectrum is their sum.
    found = spectrum(tone(3) + ratio / (1 - ratio) * tone(13), 2).classes[0]
    assert float(found[0]) == pytest.approx(tangled * 2 / 256)


def test_shares_of_energy_above_the_limit():
    assert float(spectrum(tone(3), 2).above) < 1e-4
    assert float(spectrum(tone(12), 2).above) > 1 - 1e-4
    assert float(spectrum(tone(8), 2).above) == pytest.approx(0.5, abs=0.01)
    assert spectrum(torch.full((1, 2, 9, 9), 3.0), 2).above.isnan().all()
    torch.manual_seed(0)
    for stride in (2, 3, 4):  # white noise: the share of frequencies that go
        found = spectrum(torch.randn(2, 16, 60, 48), stride).above
        assert found.tolist() == pytest.approx([1 - stride**-2] * 2, abs=0.02)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("size", [(12, 24), (9, 14), (1, 5)])
def test_every_bin_is_in_exactly_one_class(stride, size):
    torch.manual_seed(stride)
    found = spectrum(torch.randn(3, 4, *size), stride).classes
    assert found.sum(1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("stride", [2, 3])
def test_folds_are_those_of_the_definition(stride):
    """Each bin of each fold against a sum written out, and the mean against the kept positions."""
    torch.manual_seed(0)
    height, width = 2 * stride, 3 * stride
    x = torch.randn(1, 1, height, width, dtype=torch.float64)
    parts = folds(x, stride)
    kept = torch.fft.fft2(x[..., ::stride, ::stride])
    torch.testing.assert_close(parts.mean(0), kept)
    for row in range(2):
        for column in range(3):
            # signed frequency of the bin, in cycles per kept map
            v = row if row < 1 else row - 2
            u = column if column < 2 else column - 3
            base = sum(
                float(x[0, 0, m, n]) * cmath.exp(-2j * math.pi * (v * m / height + u * n / width))
                for m in range(height)
                for n in range(width)
            )
            assert complex(parts[0, 0, 0, row, column]) == pytest.approx(base)


def test_a_stride_of_one_is_refused():
    with pytest.raises(ValueError, match="stride=1 subsamples nothing"):
        spectrum(torch.zeros(1, 1, 4, 4), 1)
