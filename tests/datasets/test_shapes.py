import numpy as np
import pytest

from aa_plugins.datasets.shapes import CLASSES, SAMPLES, _star, draw_scene


def scenes(count=6, height=48, width=64):
    return [draw_scene(height, width, np.random.default_rng(seed)) for seed in range(count)]


def test_labels_follow_instances():
    for scene in scenes():
        assert scene.image.shape == (48, 64, 3) and scene.image.dtype == np.uint8
        shown = np.unique(scene.instances)
        assert shown.tolist() == list(range(len(scene.classes) + 1))
        for instance, label in enumerate(scene.classes, start=1):
            assert 1 <= label <= len(CLASSES)
            assert np.all(scene.labels[scene.instances == instance] == label)
        assert np.all(scene.labels[scene.instances == 0] == 0)


def test_same_seed_same_scene_and_another_seed_another():
    first, second = scenes(2), scenes(2)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.instances, b.instances)
    assert not np.array_equal(first[0].image, first[1].image)


def test_every_class_appears():
    labels = {label for scene in scenes(30) for label in scene.classes}
    assert labels == set(range(1, len(CLASSES) + 1))


def test_mask_is_what_the_image_shows():
    """Bars are plain, so their pixels must differ from the pixels around them, edges included."""
    bar = 1 + [shape.name for shape in CLASSES].index("bar")
    checked = 0
    for scene in scenes(20, 128, 160):
        for instance, label in enumerate(scene.classes, start=1):
            mask = scene.instances == instance
            if label == bar and mask.sum() > 30:
                colours = scene.image[mask].astype(float)
                colour = np.median(colours, axis=0)
                # A pixel whose centre the bar covers is the bar's colour for a third at least.
                distance = np.abs(colours - colour).max(axis=1)
                reach = np.abs(scene.image[~mask].astype(float) - colour).max()
                assert distance.max() <= 2 / 3 * reach + 10
                checked += 1
    assert checked > 3


def test_star_area():
    """Ten triangles between corner, notch and centre: area = n · inner · radius² · sin(π / n)."""
    y, x = np.mgrid[-40:40:0.25, -40:40:0.25] + 0.125
    for points, inner in ((5, 0.45), (3, 0.5)):
        area = _star(x, y, 30.0, points, inner).sum() / 16
        assert area == pytest.approx(points * inner * 900 * np.sin(np.pi / points), rel=5e-3)


def test_middle_sample_is_the_pixel_centre():
    assert SAMPLES % 2 == 1


def test_tiny_image_is_refused():
    with pytest.raises(ValueError, match="16x200"):
        draw_scene(16, 200, np.random.default_rng(0))
