"""One policy for images that can't be measured, whatever the host.

An image that can't be read or is cut off, that is too small for the protocol, or whose labels have
another size or several channels is **left out, named and counted**: a warning says which and why,
and the records and the result say so, too. A run that has no image left is an error with the first
reason. Hosts use it so::

    left_out = LeftOut(writer)
    for index in todo:
        sample = left_out.read(ids[index], files[index], lambda: dataset[index])
        plan = sample and left_out.read(ids[index], files[index], lambda: protocol.plan(...))
        if plan is None:
            continue
        ...
    left_out.require_some(len(ids))

What is read in another process (a loader's worker) is read by :func:`attempt` there, and a
:class:`BadImage` that comes back is handed to :meth:`LeftOut.add`. Only reading and preparing
belongs inside: what a network raises is a fault of the network and isn't caught.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from aa_plugins.evaluation.records import RecordWriter

logger = logging.getLogger(__name__)

Read = TypeVar("Read")


class BadImage(ValueError):
    """An image that can't be measured.

    Attributes:
        image_id: of the image.
        reason: one line that names the file, if it is known.
    """

    def __init__(self, image_id: str | int, reason: str):
        super().__init__(image_id, reason)
        self.image_id = image_id
        self.reason = reason

    def __str__(self) -> str:
        return f"image {self.image_id!r}: {self.reason}"


def attempt(image_id: str | int, file: object, load: Callable[[], Read]) -> Read | BadImage:
    """What ``load`` gives, or the reason why it can't.

    Args:
        image_id: of the image.
        file: its path, for the reason.
        load: reads and prepares the image and its labels. Decoders raise all kinds of errors, so
            whatever it raises is taken for a fault of the image.
    """
    try:
        return load()
    except BadImage as error:
        named = str(file) in error.reason
        return BadImage(image_id, error.reason if named else f"{file}: {error.reason}")
    except Exception as error:
        said = " ".join(str(error).split()) or "no reason given"
        return BadImage(image_id, f"{file}: {type(error).__name__}: {said}")


def check_labels(
    labels: np.ndarray, size: tuple[int, int], image_id: str | int, file: object = "its labels"
) -> None:
    """Refuse labels that don't fit their image.

    Args:
        labels: as read from their file.
        size: height and width of the image as read (after EXIF rotation, before any resize).
        image_id, file: of the image, and of its labels.

    Raises:
        BadImage: several channels, or another size.
    """
    shape = tuple(labels.shape)
    if len(shape) != 2:
        raise BadImage(
            image_id,
            f"{file} has shape {shape}: labels are class numbers in one channel; turn colours "
            "into class numbers",
        )
    if shape != tuple(size):
        raise BadImage(
            image_id,
            f"{file} is {shape[0]}x{shape[1]}, its image {size[0]}x{size[1]}; give labels of the "
            "image's size (and no EXIF rotation)",
        )


class LeftOut:
    """The images that one process leaves out of a run.

    Args:
        writer: of the records, which keep them for the merge and for resumption; none to count
            alone.

    Attributes:
        reasons: image id to the reason.
    """

    def __init__(self, writer: RecordWriter | None = None):
        self._writer = writer
        self.reasons: dict[str | int, str] = dict(writer.left_out) if writer else {}

    def read(self, image_id: str | int, file: object, load: Callable[[], Read]) -> Read | None:
        """What ``load`` gives, as in :func:`attempt`; None where the image is left out."""
        found = attempt(image_id, file, load)
        if isinstance(found, BadImage):
            self.add(found)
            return None
        return found

    def add(self, bad: BadImage) -> None:
        """Leave an image out."""
        logger.warning(f"left out: {bad}")
        self.reasons[bad.image_id] = bad.reason
        if self._writer is not None:
            self._writer.leave_out(bad.image_id, bad.reason)

    def require_some(self, images: int) -> None:
        """
        Args:
            images: how many there were.

        Raises:
            ValueError: all of them were left out.
        """
        if images and len(self.reasons) >= images:
            image_id, reason = next(iter(self.reasons.items()))
            raise ValueError(
                f"no image was measured, all {images} are left out; the first, {image_id!r}: "
                f"{reason}"
            )
