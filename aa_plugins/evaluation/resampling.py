"""What is drawn when a sample of images is resampled.

Images of one sequence depend on one another: neighbouring frames show nearly the same, and so do
the errors on them. Drawn as if they were independent they make intervals too narrow. So what is
drawn, the unit, depends on the records:

============ ======================================================================================
``image``     records without a ``sequence``: single images
``block``     frames of fewer than 20 sequences: blocks of neighbouring frames within a sequence,
              which wraps around (the circular block bootstrap: Politis & Romano, in Exploring the
              Limits of Bootstrap, 1992)
``sequence``  20 sequences or more: whole sequences
============ ======================================================================================

Blocks are 3 times as long as is best for the variance (see
:mod:`aa_plugins.evaluation.block_length`), and at least as long as asked for: intervals want longer
blocks than variances do. As a block is then no small part of the sample, percentiles are stretched
by the critical values of fixed-b asymptotics (Kiefer & Vogelsang, Econometric Theory 2005, table 1,
Bartlett kernel, to which blocks come down), and those over sequences by Student's t.

That needs frames enough. On simulated series intervals cover in 93 to 97 of 100 draws with 400
frames and a correlation of neighbours of 0.5, or 1 000 and 0.9; with 101 frames, as many as CamVid
has, in 91 (0.5) and 83 (0.9), where independent images would be said to in 71 and 30. So with a
hundred frames an interval that barely leaves out zero says little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from aa_plugins.evaluation.block_length import block_length

ENOUGH_SEQUENCES = 20
LONGER = 3  # times the length that is best for the variance
CONFIDENCE = 0.95
_CHUNK = 2_000_000  # drawn images held at a time


@dataclass(frozen=True)
class Images:
    """Independent images, or what there is one record of: clips, episodes.

    Args:
        unit: what they are called.
    """

    unit: str = "image"
    stretch = 1.0

    def fitted(self, series: Sequence[np.ndarray]) -> Images:
        """These units, whatever the statistic."""
        return self

    def drawn(self, random: np.random.Generator, rows: int, images: int) -> np.ndarray:
        """(rows, images) numbers of drawn images."""
        return random.integers(0, images, (rows, images))


@dataclass(frozen=True)
class Sequences:
    """Whole sequences.

    Args:
        of_image: the number of each image's sequence, from 0.
    """

    of_image: tuple[int, ...]
    unit = "sequence"

    @property
    def stretch(self) -> float:
        """Student's t over the normal quantile, and the bias of a variance over n."""
        count = max(self.of_image) + 1
        ratio = t.ppf((1 + CONFIDENCE) / 2, count - 1) / norm.ppf((1 + CONFIDENCE) / 2)
        return float(ratio * math.sqrt(count / (count - 1)))

    def fitted(self, series: Sequence[np.ndarray]) -> Sequences:
        """These units, whatever the statistic."""
        return self

    def weights(self, random: np.random.Generator, rows: int, images: int) -> np.ndarray:
        """(rows, images), how often each image is drawn."""
        count = max(self.of_image) + 1
        drawn = random.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        return counts[:, list(self.of_image)].astype(np.float64)


@dataclass(frozen=True)
class Blocks:
    """Blocks of neighbouring frames.

    Args:
        frames: of each sequence, the images' numbers in order.
        length: of a block in frames.
    """

    frames: tuple[tuple[int, ...], ...]
    length: int = 1
    unit = "block"

    @property
    def stretch(self) -> float:
        """The critical value of fixed-b asymptotics at this share of the sample, over 1.96."""
        share = min(1.0, self.length / sum(map(len, self.frames)))
        return 1 + (2.9694 * share + 0.4160 * share**2 - 0.5324 * share**3) / 1.96

    def fitted(self, series: Sequence[np.ndarray]) -> Blocks:
        """Blocks as long as the dependence of a statistic asks for, and no shorter than these.

        Args:
            series: what each image contributes to the statistic, (N,); none if unknown.
        """
        images = sum(map(len, self.frames))
        found = [
            block_length([values[list(frames)] for frames in self.frames]) for values in series
        ]
        wanted = LONGER * max(found, default=images ** (1 / 3))
        # Few lengths, so that statistics share their resamples.
        wanted = math.ceil(2 ** (math.ceil(4 * math.log2(max(1.0, wanted))) / 4))
        return Blocks(self.frames, max(self.length, min(wanted, max(1, images // 2))))

    def drawn(self, random: np.random.Generator, rows: int, images: int) -> np.ndarray:
        """(rows, images) numbers of drawn images."""
        # From every image, it and the images that follow in its sequence, round and round.
        following = np.empty((images, self.length), np.int64)
        for frames in self.frames:
            count = len(frames)
            places = (np.arange(count)[:, None] + np.arange(self.length)) % count
            following[list(frames)] = np.array(frames)[places]
        starts = random.integers(0, images, (rows, math.ceil(images / self.length)))
        return following[starts].reshape(rows, -1)[:, :images]


Units = Images | Sequences | Blocks


def units_of(records: Sequence[dict], block: int | None = None) -> Units:
    """The units of records, in their order.

    Args:
        block: frames that a block has at least.

    Raises:
        ValueError: some records have a ``sequence`` and ``position``, others don't.
    """
    if "unit" in records[0]:  # what there is one record of isn't an image
        return Images(records[0]["unit"])
    known = ["sequence" in record for record in records]
    if not any(known):
        return Images()
    if not all(known):
        raise ValueError(
            f"{known.count(False)} of {len(known)} records have no sequence, such as "
            f"{records[known.index(False)]['image_id']!r}; measure all images with one rule"
        )
    names = sorted({record["sequence"] for record in records})
    if len(names) >= ENOUGH_SEQUENCES:
        return Sequences(tuple(names.index(record["sequence"]) for record in records))
    order = sorted(range(len(records)), key=lambda i: (records[i]["position"], i))
    frames = tuple(tuple(i for i in order if records[i]["sequence"] == name) for name in names)
    return Blocks(frames, min(block or 1, len(records)))


def resampled_weights(
    images: int, resamples: int, seed: int, units: Units | None = None
) -> Iterator[np.ndarray]:
    """How often each image is drawn, in blocks of (R, N); the blocks' R add up to ``resamples``."""
    units = units or Images()
    random = np.random.default_rng(seed)
    block = max(1, min(resamples, _CHUNK // max(images, 1)))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        if isinstance(units, Sequences):
            yield units.weights(random, rows, images)
            continue
        drawn = units.drawn(random, rows, images) + images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)
