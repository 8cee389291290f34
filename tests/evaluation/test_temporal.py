"""Flicker of label maps and classes on videos whose flicker is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aa_plugins.evaluation.bootstrap import intervals
from aa_plugins.evaluation.motion import known_motion
from aa_plugins.evaluation.temporal import (
    camera_path,
    classification_flicker,
    classification_statistics,
    moved_frames,
    semantic_flicker,
    semantic_statistics,
)

STILL = known_motion(6, 8, (0, 0))


def values(statistics: dict) -> dict:
    return {name: found["value"] for name, found in intervals(statistics, resamples=10).items()}


def test_identical_frames_do_not_flicker():
    labels = np.random.default_rng(0).integers(0, 3, (6, 8))
    record = semantic_flicker(labels, labels, STILL, 3)
    assert (record["flips"], record["pixels"], record["left_out"]) == (0, 48, 0)
    assert values(semantic_statistics([record, record])) == {"flicker": 0, "mTC": 100}


def test_one_flip_is_one_flip():
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    after = labels.copy()
    after[2, 1] = 1
    record = semantic_flicker(labels, after, STILL, 2)
    assert (record["flips"], record["pixels"]) == (1, 48)
    found = values(semantic_statistics([record]))
    assert found["flicker"] == pytest.approx(100 / 48)
    assert found["mTC"] == pytest.approx(100 * (23 / 24 + 24 / 25) / 2)


def test_a_known_motion_is_no_flicker():
    labels = np.random.default_rng(1).integers(0, 3, (12, 16))
    record = semantic_flicker(labels[:8, :12], labels[1:9, 2:14], known_motion(8, 12, (1, 2)), 3)
    assert (record["flips"], record["pixels"], record["left_out"]) == (0, 7 * 10, 96 - 70)


def test_changes_of_the_truth_and_unlabelled_pixels_are_left_out():
    before, after = np.zeros((6, 8), int), np.zeros((6, 8), int)
    after[0, :3] = 1  # a change that the truth makes, too; one that it doesn't; one unlabelled
    truth = (np.zeros((6, 8), int), np.zeros((6, 8), int))
    truth[1][0, 0], truth[1][0, 2] = 1, 255
    record = semantic_flicker(before, after, STILL, 2, truth)
    assert (record["flips"], record["pixels"]) == (1, 46)


def test_classes():
    steps = [
        classification_flicker(np.array([0.6, 0.4]), np.array([0.7, 0.3])),
        classification_flicker(np.array([0.7, 0.3]), np.array([0.4, 0.6])),
    ]
    found = values(classification_statistics(steps))
    assert found["flicker"] == 50
    assert found["score_jitter"] == pytest.approx((0.1 + 0.3) / 2)


def test_frames_along_a_path_show_the_image_where_the_path_says():
    image = torch.arange(20 * 24.0).view(20, 24)
    path = np.array([[0.0, 0.0], [1.0, -2.0], [2.0, 1.0]])
    frames = list(moved_frames(image, path))
    assert [tuple(f.shape) for f in frames] == [(16, 20)] * 3
    for frame, (dy, dx) in zip(frames, path.astype(int)):
        assert torch.equal(frame, image[2 + dy : 18 + dy, 2 + dx : 22 + dx])


def test_fractions_of_a_pixel_follow_the_wave():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    wave = lambda dy, dx: torch.cos(0.5 * (y + dy)) + torch.cos(0.4 * (x + dx))  # noqa: E731
    (frame,) = moved_frames(wave(0, 0), np.array([[0.5, -1.25]]))
    expected = wave(0.5, -1.25)[2:-2, 2:-2]
    assert (frame - expected)[12:-12, 12:-12].abs().max() < 0.02


def test_a_camera_path_is_smooth_and_within_reach():
    path = camera_path(60, reach=3.0, seed=4)
    assert path.shape == (60, 2) and (path[0] == 0).all()
    assert np.abs(path).max() == pytest.approx(3.0)
    assert np.abs(np.diff(path, axis=0)).max() < 1
    assert (path == camera_path(60, reach=3.0, seed=4)).all()


def test_a_path_longer_than_the_image_is_refused():
    with pytest.raises(ValueError, match="leaves nothing of an image"):
        next(moved_frames(torch.zeros(8, 8), np.array([[5.0, 0.0]])))
