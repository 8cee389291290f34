"""Moving pictures: predictions of several models side by side, with what flickers marked."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from aa_plugins.report.elements import Picture
from aa_plugins.report.flips import FLIP, palette_of

GAP = 8  # pixels between two models
PANEL = 360  # pixels of a panel's width, at least
MILLISECONDS = 400  # a frame


def painted_frame(
    image: np.ndarray, labels: np.ndarray, flips: np.ndarray, colours: np.ndarray
) -> np.ndarray:
    """One frame of one model: (H, W, 3) uint8.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) predicted classes; those outside the palette leave the image as it is.
        flips: (H, W) booleans, drawn in the colour of flips.
        colours: (classes, 3) in [0, 1].
    """
    known = (labels >= 0) & (labels < len(colours))
    paint = 255 * colours[np.where(known, labels, 0)]
    frame = np.where(known[..., None], 0.45 * image + 0.55 * paint, image)
    return np.where(flips[..., None], 255 * np.array(FLIP), frame).round().astype(np.uint8)


def boxed_frame(
    image: np.ndarray, boxes: Sequence[Sequence[float]], fresh: Sequence[bool]
) -> np.ndarray:
    """One frame of one detector: boxes (x1, y1, x2, y2) in pixels, those that just came, went or
    changed class in the colour of flips."""
    frame = image.copy()
    for box, changed in zip(boxes, fresh, strict=True):
        (x1, y1, x2, y2), width = np.rint(box).astype(int).tolist(), max(1, image.shape[1] // 240)
        colour = [round(255 * part) for part in FLIP] if changed else [60, 200, 120]
        cv2.rectangle(frame, (x1, y1), (x2, y2), colour, width * (2 if changed else 1))
    return frame


def side_by_side(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames of several models in one, enlarged by whole numbers where they are small."""
    factor = max(1, -(-PANEL // frames[0].shape[1]))
    frames = [f.repeat(factor, 0).repeat(factor, 1) for f in frames]
    gap = np.full((frames[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for frame in frames for part in (gap, frame)]
    return np.concatenate(parts[1:], 1)


def moving_picture(
    frames: Sequence[np.ndarray], alt: str, caption: str, milliseconds: int = MILLISECONDS
) -> Picture:
    """An animated WebP that goes on for ever, and its first frame for those who want no motion.

    Args:
        frames: (H, W, 3) uint8, two or more.
        milliseconds: of a frame.

    Raises:
        ValueError: for fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frames don't move: give two or more")
    images = [Image.fromarray(frame) for frame in frames]
    moving, still = io.BytesIO(), io.BytesIO()
    images[0].save(
        moving,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=milliseconds,
        loop=0,
        quality=80,
    )
    images[0].save(still, "WEBP", quality=85)
    return Picture(moving.getvalue(), alt, caption, still.getvalue())


def flip_movie(
    images: Sequence[np.ndarray],
    predictions: Mapping[str, Sequence[np.ndarray]],
    flips: Mapping[str, Sequence[np.ndarray]],
    classes: int,
    palette: np.ndarray | None = None,
) -> Picture:
    """Label maps of several models along a video, what flickers marked.

    Args:
        images: (H, W, 3) uint8 RGB, a frame each.
        predictions: of each model (H, W) labels a frame.
        flips: of each model (H, W) booleans a frame.
        classes: labels run from 0 to ``classes`` − 1.
        palette: (classes, 3) uint8; distinct colours unless given.
    """
    colours = palette_of(classes) if palette is None else np.asarray(palette) / 255
    frames = [
        side_by_side(
            [
                painted_frame(image, predictions[name][i], flips[name][i], colours)
                for name in predictions
            ]
        )
        for i, image in enumerate(images)
    ]
    names = ", ".join(predictions)
    alt = f"A moving picture of the predictions of {names}, pixels that flicker in pink"
    caption = f"From left to right: {names}. Pink pixels change class though only the view moves."
    return moving_picture(frames, alt, caption)


def write_video(path: str | Path, frames: Sequence[np.ndarray], frames_per_second: float) -> None:
    """An MP4 file of (H, W, 3) uint8 RGB frames.

    Raises:
        OSError: where it can't be written.
    """
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, frames_per_second, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path} can't be written as MP4: choose another folder, or a .webp picture")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def framed(image: np.ndarray, changed: bool) -> np.ndarray:
    """One frame of a classifier: a border in the colour of flips where its class changed."""
    frame, width = image.copy(), max(2, image.shape[0] // 40)
    colour = [round(255 * part) for part in FLIP] if changed else [60, 200, 120]
    for side in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        frame[side] = colour
    return frame
