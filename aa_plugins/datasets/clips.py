"""Frames of a video: a file, or a folder of images in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from aa_plugins.datasets.images import SUFFIXES, read_image

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


class Clip:
    """Frames (H, W, 3) uint8 in RGB, one after the other.

    Args:
        path: a video file, or a folder of images.
        frames: at most as many; all unless given.
        every: keep one of this many frames.

    Attributes:
        frames_per_second: of the file, of kept frames; 10 for a folder.

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: for a file that isn't a video.
    """

    def __init__(self, path: str | Path, frames: int | None = None, every: int = 1) -> None:
        self.path, self.frames, self.every = Path(path), frames, every
        self.name = self.path.stem
        self.frames_per_second = 10.0
        if self.path.is_dir():
            self._files = sorted(p for p in self.path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not self._files:
                raise FileNotFoundError(f"no image in {path}: looked for {' '.join(SUFFIXES)}")
            total = len(self._files)
        elif not self.path.is_file():
            raise FileNotFoundError(f"no video {path}: give a file, or a folder of frames")
        else:
            reader = cv2.VideoCapture(str(self.path))
            total = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
            if not reader.isOpened() or total < 1:
                known = " ".join(VIDEOS)
                raise ValueError(f"{path} isn't a video that can be read: give one of {known}")
            self.frames_per_second = float(reader.get(cv2.CAP_PROP_FPS)) / every
            reader.release()
        kept = -(-total // every)
        self._length = kept if frames is None else min(kept, frames)

    def __len__(self) -> int:
        return self._length

    @property
    def files(self) -> list[Path]:
        """The files of its frames, where it is a folder of them."""
        return self._files[:: self.every][: len(self)] if self.path.is_dir() else []

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.path.is_dir():
            for file in self.files:
                yield read_image(file)
            return
        reader = cv2.VideoCapture(str(self.path))
        try:
            for number in range(len(self) * self.every):
                if not reader.grab():
                    return  # the header may promise more frames than there are
                if number % self.every == 0:
                    read, frame = reader.retrieve()
                    if not read:
                        return
                    yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            reader.release()


class Stills:
    """Frames of a video file, spread evenly over it, each read when it is asked for.

    Args:
        path: the file.
        count: how many, at most.

    Raises:
        FileNotFoundError, ValueError: as of a `Clip`.
    """

    def __init__(self, path: str | Path, count: int = 1000) -> None:
        total = len(Clip(path))
        self.path = Path(path)
        self.numbers = np.linspace(0, total - 1, min(total, count)).astype(int).tolist()

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> tuple[np.ndarray, None]:
        """A frame (H, W, 3), uint8 in RGB, of which nothing is known.

        Raises:
            ValueError: where the file promises a frame that it doesn't hold.
        """
        reader = cv2.VideoCapture(str(self.path))
        try:
            reader.set(cv2.CAP_PROP_POS_FRAMES, self.numbers[index])
            read, frame = reader.read()
        finally:
            reader.release()
        if not read:
            raise ValueError(f"{self.path}: frame {self.numbers[index]} can't be read: cut it off")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), None


def clips_below(folder: str | Path) -> list[Path]:
    """Every video file and every folder of images right below, or further below, a folder."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    found = {path for path in files if path.suffix.lower() in VIDEOS}
    found |= {path.parent for path in files if path.suffix.lower() in SUFFIXES}
    return sorted(found)
