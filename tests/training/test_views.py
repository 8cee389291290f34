import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from aa_plugins.training.views import moved_views, random_offsets, spread_offsets


def coordinates(height, width):
    """(1, 2, height, width): every pixel carries its row and its column."""
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).view(1, -1).expand(height, width)
    return torch.stack([rows, columns]).float()[None]


@pytest.mark.parametrize("margin", [0, 2])
def test_aligned_predictions_are_of_the_same_pixels(margin):
    window = coordinates(20, 30)
    moved = moved_views((13, 23), [(0, 0), (7, 3), (2, 7), (5, 5)], margin)
    expected = window[(..., *moved.overlap.slices)]
    assert expected.shape[-2:] == (13 - 7 - 2 * margin, 23 - 7 - 2 * margin)
    for number, view in enumerate(moved.inputs(window)):
        assert view.shape[-2:] == (13, 23)
        assert torch.equal(moved.aligned(view, number), expected)


def test_coarse_logits_are_aligned_at_the_size_of_the_input():
    """Bilinear interpolation of block means of a ramp gives the ramp back, away from borders."""
    window = coordinates(20, 20)
    moved = moved_views((16, 16), [(0, 0), (4, 4), (0, 4)], margin=2)
    expected = window[(..., *moved.overlap.slices)]
    for number, view in enumerate(moved.inputs(window)):
        assert torch.allclose(moved.aligned(avg_pool2d(view, 4), number), expected, atol=1e-5)


def test_logits_of_images_have_no_place():
    logits = torch.randn(2, 7)
    assert moved_views((4, 4), [(0, 0), (1, 1)]).aligned(logits, 1) is logits


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_random_phases_are_different_and_reach_all(stride):
    random = np.random.default_rng(0)
    drawn = random_offsets(stride**2, stride, random)
    assert sorted(drawn) == [(dy, dx) for dy in range(stride) for dx in range(stride)]
    few = random_offsets(3, stride, random)
    assert len(set(few)) == 3 and np.max(few) < stride


@pytest.mark.parametrize(("count", "cells"), [(2, 1), (4, 2), (16, 4)])
def test_spread_phases_are_one_a_cell(count, cells):
    """Of the stride's square cut into cells × cells, each holds count / cells² of the phases."""
    offsets = np.array(spread_offsets(count, 32)) * cells // 32
    held = np.bincount(offsets[:, 0] * cells + offsets[:, 1])
    assert held.tolist() == [count // cells**2] * cells**2


@pytest.mark.parametrize("stride", [3, 4, 16])
def test_all_phases(stride):
    every = {(dy, dx) for dy in range(stride) for dx in range(stride)}
    assert set(spread_offsets(stride**2, stride)) == every
    assert len(spread_offsets(stride**2, stride)) == stride**2


def test_refusals():
    with pytest.raises(ValueError, match="5 phases at a stride of 2: there are 4"):
        spread_offsets(5, 2)
    with pytest.raises(ValueError, match="3 phases: choose a power of two, or all 16"):
        spread_offsets(3, 4)
    with pytest.raises(ValueError, match="don't overlap"):
        moved_views((8, 8), [(0, 0), (3, 3)], margin=3)
    with pytest.raises(ValueError, match=r"logits of shape \(1, 2, 3\)"):
        moved_views((8, 8), [(0, 0)]).aligned(torch.zeros(1, 2, 3), 0)
