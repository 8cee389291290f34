"""Corruptions: all of them on today's NumPy, the same for the same image."""

from __future__ import annotations

import numpy as np
import pytest

from aa_plugins.robustness.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    corrupted,
    corruption_conditions,
)

pytest.importorskip("imagecorruptions", reason="pip install 'aa-plugins[robustness]'")


def photo(height=40, width=56, seed=0):
    """Smooth, of many colours."""
    rows, columns = np.mgrid[:height, :width] / 8
    waves = [np.sin(rows + seed) + np.cos(columns * k + seed) for k in (1, 2, 3)]
    return (127 + 60 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)


def test_there_are_75_and_the_clean_images():
    names = [condition.name for condition in corruption_conditions()]
    assert len(names) == len(set(names)) == 1 + 75 and names[0] == "clean"


@pytest.mark.parametrize("name", [c for c in CORRUPTIONS if c != "glass_blur"])
def test_a_corruption_depends_on_image_and_severity_alone(name):
    image = photo()
    np.random.seed(1)
    first = corrupted(image, name, 3)
    np.random.seed(2)
    before = np.random.get_state()[1].copy()
    assert np.array_equal(corrupted(image.copy(), name, 3), first)
    assert np.array_equal(np.random.get_state()[1], before)  # the caller's random numbers
    assert first.shape == image.shape and first.dtype == np.uint8
    assert not np.array_equal(first, image)
    assert not np.array_equal(corrupted(image, name, 5), first)


@pytest.mark.slow
def test_glass_blur_repeats():
    """Apart, as it is compiled when it is first called."""
    assert np.array_equal(corrupted(photo(), "glass_blur", 3), corrupted(photo(), "glass_blur", 3))


def test_the_definitions_where_they_are_closed_forms():
    """Contrast draws towards the mean, brightness adds to HSV's value, noise has its deviation."""
    image = photo()
    for severity, factor in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05)):
        x = image / 255
        mean = x.mean((0, 1))
        expected = 255 * ((x - mean) * factor + mean).clip(0, 1)
        assert np.abs(corrupted(image, "contrast", severity) - expected).max() <= 1
    grey = np.full((200, 200, 3), 100, np.uint8)
    for severity, added in zip(SEVERITIES, (0.1, 0.2, 0.3, 0.4, 0.5)):
        found = corrupted(grey, "brightness", severity).astype(float)
        assert np.abs(found - (100 + 255 * added)).max() <= 1
    noise = corrupted(np.full((200, 200, 3), 127, np.uint8), "gaussian_noise", 1) - 127.0
    assert noise.std() == pytest.approx(255 * 0.08, rel=0.02)
    assert abs(noise.mean()) < 1


def test_noise_of_two_images_is_not_the_same():
    one, other = np.full((40, 40, 3), 100, np.uint8), np.full((40, 40, 3), 120, np.uint8)
    residues = [corrupted(x, "gaussian_noise", 2).astype(float) - x for x in (one, other)]
    assert abs(np.corrcoef(residues[0].ravel(), residues[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((photo(), "rain", 1), "no corruption 'rain': choose of gaussian_noise"),
        ((photo(), "fog", 6), "severity 6: give 1 to 5"),
        ((photo(31, 50), "fog", 1), "31x50 is too small"),
    ],
)
def test_what_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        corrupted(*arguments)
