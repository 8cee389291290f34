"""Motion between frames, and what it explains."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from aa_plugins.evaluation.motion import known_motion, optical_flow


def texture(height: int = 96, width: int = 128) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def test_whole_pixels_are_found_exactly():
    labels = np.random.default_rng(0).integers(0, 5, (12, 16))
    after = labels[2:10, 3:15]
    before = labels[1:9, 4:16]  # `after` shows at (y, x) what this shows at (y + 1, x − 1)
    motion = known_motion(8, 12, (1, -1))
    assert motion.valid.sum() == 7 * 11
    assert (motion.warped(before) == after)[motion.valid].all()
    assert motion.explains(before, after)[motion.valid].all()


def test_a_boundary_may_fall_on_either_side_of_a_fraction():
    before = np.array([[0, 0, 1, 1]])
    motion = known_motion(1, 4, (0.0, 0.5))  # pixel 1 shows what lay between pixels 1 and 2
    assert motion.explains(before, np.array([[0, 0, 1, 1]]))[0, :3].all()
    assert motion.explains(before, np.array([[0, 1, 1, 1]]))[0, :3].all()
    assert not motion.explains(before, np.array([[1, 1, 1, 1]]))[0, 0]


def test_flow_finds_a_moved_texture():
    image = texture()
    before, after = image[8:88, 8:120], image[10:90, 11:123]
    motion = optical_flow(before, after)
    inner = (slice(12, -12), slice(12, -12))
    assert motion.valid[inner].mean() > 0.9
    offset = motion.source - known_motion(80, 112, (0, 0)).source
    assert np.median(offset[..., 0][motion.valid]) == pytest.approx(2, abs=0.2)
    assert np.median(offset[..., 1][motion.valid]) == pytest.approx(3, abs=0.2)


def test_what_appears_is_left_out():
    before = np.repeat(texture()[..., None], 3, 2)
    after = before.copy()
    after[30:60, 40:80] = 255 - after[30:60, 40:80]
    valid = optical_flow(before, after).valid
    assert valid[32:58, 42:78].mean() < 0.3
    assert valid[:24].mean() > 0.9


def test_frames_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="give two of one shape"):
        optical_flow(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))
