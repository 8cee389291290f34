"""Bands of an image's spectrum."""

from __future__ import annotations

import math

import pytest
import torch

from aa_plugins.diagnostics.bands import BANDS, band_edges, band_of, without_band


@pytest.mark.parametrize("size", [(24, 32), (15, 21), (7, 64)])
def test_bands_are_a_partition(size):
    """What each band takes away adds up to the image without its mean."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    taken = sum(x - without_band(x, band) for band in range(BANDS))
    torch.testing.assert_close(taken, x - x.mean((-2, -1), keepdim=True))


@pytest.mark.parametrize("cycles", [(1, 0), (0, 5), (6, 8), (16, 16), (3, 15)])
def test_a_wave_is_in_the_band_of_its_radius(cycles):
    size = 32
    line = torch.arange(size, dtype=torch.float64)
    phase = 2 * math.pi * (cycles[0] * line[:, None] + cycles[1] * line) / size
    wave = (torch.cos(phase) + 2)[None, None]
    radius = math.hypot(*cycles) / size
    edges = band_edges()
    own = min(sum(radius >= edge for edge in edges[1:]), BANDS - 1)
    for band in range(BANDS):
        expected = torch.full_like(wave, 2) if band == own else wave
        torch.testing.assert_close(without_band(wave, band), expected)


def test_every_frequency_lies_between_the_edges_of_its_band():
    bands, edges = band_of(20, 30), band_edges()
    rows, columns = torch.fft.fftfreq(20), torch.fft.fftfreq(30)
    radius = torch.hypot(rows[:, None], columns)
    for band in range(BANDS):
        found = radius[bands == band]
        assert len(found) and found.min() >= edges[band] - 1e-6
        assert found.max() <= edges[band + 1] + 1e-6
    assert bands[0, 0] == -1 and (bands == -1).sum() == 1


def test_a_band_that_there_is_not():
    with pytest.raises(ValueError, match="band=16 of 16"):
        without_band(torch.zeros(1, 1, 8, 8), 16)
