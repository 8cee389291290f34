"""Where the content of one frame of a video was in the frame before."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

# A pixel whose compensated brightness changes by more has changed itself: in levels of 255.
STILL_LEVELS = 12.0


class Motion(NamedTuple):
    """From every pixel of a frame to its place in the frame before.

    Attributes:
        source: (H, W, 2) float32, row and column in the frame before, in pixels.
        valid: (H, W) booleans: known, inside the frame before, and there to be seen in both.
    """

    source: np.ndarray
    valid: np.ndarray

    def warped(self, before: np.ndarray) -> np.ndarray:
        """A map of the frame before, (H, W), brought onto this frame by its nearest pixel."""
        rows, columns = np.rint(np.nan_to_num(self.source)).astype(int).transpose(2, 0, 1)
        height, width = before.shape
        return before[rows.clip(0, height - 1), columns.clip(0, width - 1)]

    def explains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Where a label of this frame is one of the four around its place in the frame before.

        A boundary between two pixels may fall on either of them, so that alone is no change.

        Args:
            before, after: (H, W) labels of the two frames.

        Returns:
            (H, W) booleans.
        """
        height, width = before.shape
        source = np.nan_to_num(self.source)
        found = np.zeros(after.shape, bool)
        for row in (np.floor, np.ceil):
            for column in (np.floor, np.ceil):
                rows = row(source[..., 0]).astype(int).clip(0, height - 1)
                columns = column(source[..., 1]).astype(int).clip(0, width - 1)
                found |= before[rows, columns] == after
        return found


def known_motion(height: int, width: int, shift: tuple[float, float]) -> Motion:
    """That of a frame which shows at (y, x) what the frame before shows at (y + dy, x + dx).

    Args:
        height, width: of both frames, in pixels.
        shift: (dy, dx) in pixels.
    """
    source = _grid(height, width) + np.float32(shift)
    return Motion(source, _inside(source))


def optical_flow(before: np.ndarray, after: np.ndarray) -> Motion:
    """Motion by OpenCV's dense inverse search (Kroeger et al., ECCV 2016), where it can be trusted.

    A pixel counts where going back and forth ends where it began (the test of Sundaram, Brox and
    Keutzer, ECCV 2010, section 3), so that occlusions are left out, and where the compensated
    image has the same brightness.

    Args:
        before, after: (H, W, 3) RGB or (H, W) frames, uint8.

    Raises:
        ValueError: for frames of different shapes or of another type.
    """
    if before.shape != after.shape or before.dtype != np.uint8 or after.dtype != np.uint8:
        raise ValueError(
            f"frames {before.shape} {before.dtype} and {after.shape} {after.dtype}: give two of "
            "one shape, uint8"
        )
    gray = [
        np.ascontiguousarray(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) if f.ndim == 3 else f)
        for f in (before, after)
    ]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back = flow.calc(gray[1], gray[0], None)  # at each pixel of `after`: (dx, dy) to `before`
    forth = flow.calc(gray[0], gray[1], None)
    source = _grid(*gray[0].shape) + back[..., ::-1]
    x, y = np.ascontiguousarray(source[..., 1]), np.ascontiguousarray(source[..., 0])
    returned = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    length = np.square(back).sum(2) + np.square(returned).sum(2)
    closes = np.square(back + returned).sum(2) <= 0.01 * length + 0.5
    seen = cv2.remap(gray[0], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    still = np.abs(seen.astype(np.float32) - gray[1]) <= STILL_LEVELS
    return Motion(source, _inside(source) & closes & still)


def _grid(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns], 2).astype(np.float32)


def _inside(source: np.ndarray) -> np.ndarray:
    limit = np.array(source.shape[:2]) - 1
    return ((source >= 0) & (source <= limit)).all(2)
