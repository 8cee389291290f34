"""Flicker: what changes in a prediction from frame to frame though the scene doesn't.

A record stands for one frame and the one before it, and carries its clip (`sequence`) and its
number there (`position`), so that intervals can be made over blocks of frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from aa_plugins.evaluation.bootstrap import Ratio
from aa_plugins.evaluation.motion import Motion
from aa_plugins.evaluation.views import fourier_shift


def camera_path(frames: int, reach: float = 4.0, seed: int = 0) -> np.ndarray:
    """A smooth walk of a camera: (frames, 2) offsets (dy, dx) in pixels, from (0, 0).

    Args:
        frames: 2 or more.
        reach: largest offset along either axis, in pixels.
        seed: of the walk.
    """
    random = np.random.default_rng(seed)
    steps = random.normal(size=(frames + 8, 2))
    window = np.hanning(10)[1:-1]
    steps = np.stack([np.convolve(axis, window, "valid") for axis in steps.T], 1)[:frames]
    path = np.cumsum(steps, 0)
    path -= path[0]
    return path * reach / max(np.abs(path).max(), 1e-9)


def moved_frames(image: torch.Tensor, path: np.ndarray) -> Iterator[torch.Tensor]:
    """A still image as a camera sees it along a path: no change but the motion, which is known.

    Args:
        image: (..., H, W).
        path: (frames, 2) offsets in pixels.

    Returns:
        a frame (..., H − 2m, W − 2m) for each offset, m the path's reach rounded up: frame t shows
        at (y, x) the band-limited image at (y + m + dy, x + m + dx).

    Raises:
        ValueError: where the path leaves too little of the image.
    """
    margin = reach_of(path)
    height, width = image.shape[-2] - 2 * margin, image.shape[-1] - 2 * margin
    if min(height, width) < 1:
        raise ValueError(
            f"a path of ±{margin} pixels leaves nothing of an image {tuple(image.shape[-2:])}: "
            "take a larger image or a shorter reach"
        )
    for offset in path:
        whole = np.floor(offset).astype(int)
        moved = fourier_shift(image, tuple(float(f) for f in offset - whole))
        top, left = margin + whole
        yield moved[..., top : top + height, left : left + width]


def reach_of(path: np.ndarray) -> int:
    """The largest offset of a path along either axis, in whole pixels, rounded up."""
    return int(np.ceil(np.abs(path).max()))


def semantic_flicker(
    before: np.ndarray,
    after: np.ndarray,
    motion: Motion,
    num_classes: int,
    truth: tuple[np.ndarray, np.ndarray] | None = None,
    ignore_index: int = 255,
) -> dict:
    """The counts of one step of a video, of JSON types.

    Args:
        before, after: (H, W) predicted labels of two neighbouring frames.
        motion: from `after` to `before`.
        num_classes: labels run from 0 to ``num_classes`` − 1.
        truth: (H, W) true labels of both frames; then changes that the truth makes, too, aren't
            counted as flicker.
        ignore_index: the label of unlabelled pixels, left out.
    """
    valid = motion.valid.copy()
    warped = motion.warped(before)
    if truth is not None:
        valid &= (truth[1] != ignore_index) & (motion.warped(truth[0]) != ignore_index)
        valid &= motion.explains(*truth)
    a, b = warped[valid].astype(np.int64), after[valid].astype(np.int64)
    table = np.bincount(a * num_classes + b, minlength=num_classes**2)
    table = table.reshape(num_classes, num_classes)
    shared = table.diagonal()
    return {
        "flips": int((valid & ~motion.explains(before, after)).sum()),
        "pixels": int(valid.sum()),
        "left_out": int((~valid).sum()),
        "intersection": shared.tolist(),
        "union": (table.sum(0) + table.sum(1) - shared).tolist(),
    }


def classification_flicker(before: np.ndarray, after: np.ndarray) -> dict:
    """Of one step of a video: whether the top class changes, and how far its score moves.

    Args:
        before, after: (C,) probabilities of two neighbouring frames.
    """
    top = int(np.argmax(before))
    return {
        "flips": int(top != int(np.argmax(after))),
        "steps": 1,
        "score_jitter": float(abs(after[top] - before[top])),
    }


def semantic_statistics(records: Sequence[dict]) -> dict:
    """Per cent of pixels that flicker, and mTC: the mean IoU of the prediction brought over from
    the frame before with the current one."""
    return {
        "flicker": Ratio(_column(records, "flips"), _column(records, "pixels"), 100),
        "mTC": Ratio(_column(records, "intersection"), _column(records, "union"), 100),
    }


def classification_statistics(records: Sequence[dict]) -> dict:
    """Per cent of steps at which the top class changes, and the mean change of its score."""
    steps = _column(records, "steps")
    return {
        "flicker": Ratio(_column(records, "flips"), steps, 100),
        "score_jitter": Ratio(_column(records, "score_jitter"), steps),
    }


def dense_steps(
    predictions: Iterable[np.ndarray], motions: Iterable[Motion], clip: str, num_classes: int
) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
    """Of label maps along a video, every frame but the first: its record, labels, and flips.

    Args:
        predictions: (H, W) labels, a frame each.
        motions: from each frame but the first to the one before.
        clip: the record's `sequence`.
        num_classes: labels run from 0 to ``num_classes`` − 1.
    """
    predictions = iter(predictions)
    before = next(predictions)
    for position, (after, motion) in enumerate(zip(predictions, motions), start=1):
        record = semantic_flicker(before, after, motion, num_classes)
        flips = motion.valid & ~motion.explains(before, after)
        yield {**_place(clip, position), **record}, after, flips
        before = after


def class_steps(predictions: Iterable[np.ndarray], clip: str) -> Iterator[dict]:
    """Of scores (C,) along a video, the record of every frame but the first."""
    predictions = iter(predictions)
    before = next(predictions)
    for position, after in enumerate(predictions, start=1):
        yield {**_place(clip, position), **classification_flicker(before, after)}
        before = after


def _place(clip: str, position: int) -> dict:
    return {"image_id": f"{clip}/{position:06d}", "sequence": clip, "position": position}


def _column(records: Sequence[dict], name: str) -> list:
    return [record[name] for record in records]
