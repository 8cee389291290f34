"""Paired bootstrap over images.

The views of one image depend on one another, so the sample is the image: resamples draw images
with replacement, and everything measured on an image comes with it. All statistics of a run, and
of two models compared, see the same resamples. Intervals are percentile intervals (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
_CHUNK = 2_000_000  # drawn images held at a time


class Statistic(Protocol):
    """A number computed from a sample of images.

    Attributes:
        images: N, the size of the sample.
        defined: the number of those images that the statistic rests on.
    """

    images: int
    defined: int

    def estimate(self, weights: np.ndarray) -> np.ndarray:
        """(R, N), how often R resamples hold each image, to (R,) values, NaN where undefined."""

    def paired(self, other: Statistic) -> tuple[Statistic, Statistic]:
        """Both models' statistics as they are to be compared."""


class Ratio:
    """A ratio of sums over images, averaged over columns: mean_c(sum_i n_ic / sum_i d_ic).

    Covers pooled shares (one column) and mean IoU (a column per class, intersection over union).
    Columns without a denominator in a resample are left out of its mean.

    Args:
        numerators, denominators: (N,) or (N, C), a row per image.
        scale: factor on the result; 100 gives percent.
    """

    def __init__(self, numerators: Sequence, denominators: Sequence, scale: float = 1.0):
        rows = len(numerators)
        self.numerators = np.asarray(numerators, np.float64).reshape(rows, -1)
        self.denominators = np.asarray(denominators, np.float64).reshape(rows, -1)
        self.scale = scale
        self.images = rows
        self.defined = int((self.denominators.sum(1) > 0).sum())

    def estimate(self, weights: np.ndarray) -> np.ndarray:
        below = weights @ self.denominators
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(below > 0, (weights @ self.numerators) / below, 0.0)
            return self.scale * ratios.sum(1) / (below > 0).sum(1)

    def paired(self, other: Ratio) -> tuple[Ratio, Ratio]:
        return self, other


class Mean(Ratio):
    """The mean of a value per image. Images whose value is None (undefined) are left out."""

    def __init__(self, values: Sequence[float | None], scale: float = 1.0):
        defined = [value is not None for value in values]
        super().__init__([0.0 if v is None else v for v in values], defined, scale)

    def paired(self, other: Mean) -> tuple[Mean, Mean]:
        """Both means on the images where both are defined."""
        both = (self.denominators > 0) & (other.denominators > 0)
        return tuple(
            Mean(np.where(both, mean.numerators, None)[:, 0], mean.scale) for mean in (self, other)
        )


class Average:
    """The mean of a statistic over several trainings, all resampled alike.

    Args:
        parts: the statistic of each training, on the same images in the same order.
    """

    def __init__(self, parts: Sequence[Statistic]):
        self.parts = tuple(parts)
        self.images = self.parts[0].images
        self.defined = min(part.defined for part in self.parts)

    def estimate(self, weights: np.ndarray) -> np.ndarray:
        return np.mean([part.estimate(weights) for part in self.parts], axis=0)

    def paired(self, other: Average) -> tuple[Average, Average]:
        """Both averages, training by training on the images where both are defined."""
        pairs = [a.paired(b) for a, b in zip(self.parts, other.parts, strict=True)]
        return tuple(Average(parts) for parts in zip(*pairs))


def average(trees: Sequence[dict]) -> dict:
    """Trees of statistics of several trainings to the tree of their averages.

    Statistics that not all trees have are left out.
    """
    leaves = [dict(_leaves(tree)) for tree in trees]
    return _map(
        trees[0],
        lambda path, _: (
            Average([found[path] for found in leaves]) if all(path in f for f in leaves) else None
        ),
    )


def intervals(tree: dict, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """A tree of statistics to the same tree of ``{"value", "low", "high", "images"}``.

    ``low`` and ``high`` bound the 95 % interval; None with fewer than two images. An undefined
    value is None.
    """
    found = _estimates(dict(_leaves(tree)), resamples, seed)

    def entry(path: tuple, statistic: Statistic) -> dict:
        value, draws = found[path]
        low, high = _bounds(draws, statistic.defined)
        return {"value": _number(value), "low": low, "high": high, "images": statistic.defined}

    return _map(tree, entry)


def differences(tree_a: dict, tree_b: dict, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """Two models' trees on the same images in the same order to a tree of paired differences:
    ``{"a", "b", "difference", "low", "high", "images"}`` with difference = b - a.

    Statistics that only one of the trees has are left out; a mean is taken over the images where it
    is defined for both.
    """
    leaves_a, leaves_b = dict(_leaves(tree_a)), dict(_leaves(tree_b))
    shared = {path: leaves_a[path].paired(leaves_b[path]) for path in leaves_a if path in leaves_b}
    found = _estimates(
        {(side, *path): pair[side] for path, pair in shared.items() for side in (0, 1)},
        resamples,
        seed,
    )

    def entry(path: tuple, _: Statistic) -> dict | None:
        if path not in shared:
            return None
        (a, draws_a), (b, draws_b) = found[(0, *path)], found[(1, *path)]
        images = min(statistic.defined for statistic in shared[path])
        low, high = _bounds(draws_b - draws_a, images)
        difference = _number(b - a)
        numbers = {"a": _number(a), "b": _number(b), "difference": difference}
        return {**numbers, "low": low, "high": high, "images": images}

    return _map(tree_a, entry)


def resampled_weights(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn, in blocks of (R, N); the blocks' R add up to ``resamples``."""
    random = np.random.default_rng(seed)
    block = max(1, min(resamples, _CHUNK // max(images, 1)))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)


def _estimates(
    leaves: dict[tuple, Statistic], resamples: int, seed: int
) -> dict[tuple, tuple[float, np.ndarray]]:
    """Path to (value, (resamples,) values under resampling), the same resamples for all."""
    images = max((leaf.images for leaf in leaves.values()), default=0)
    whole = np.ones((1, images))
    values = {path: float(leaf.estimate(whole)[0]) for path, leaf in leaves.items()}
    draws: dict[tuple, list] = {path: [] for path in leaves}
    for weights in resampled_weights(images, resamples, seed):
        for path, leaf in leaves.items():
            draws[path].append(leaf.estimate(weights))
    return {path: (values[path], np.concatenate(draws[path])) for path in leaves}


def _bounds(draws: np.ndarray, images: int) -> tuple[float | None, float | None]:
    draws = draws[np.isfinite(draws)]
    if images < 2 or not len(draws):
        return None, None
    tail = 50 * (1 - CONFIDENCE)
    return tuple(map(float, np.percentile(draws, [tail, 100 - tail])))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _leaves(tree: dict, path: tuple = ()) -> Iterator[tuple[tuple, Statistic]]:
    for name, branch in tree.items():
        if isinstance(branch, dict):
            yield from _leaves(branch, (*path, name))
        else:
            yield (*path, name), branch


def _map(tree: dict, function, path: tuple = ()) -> dict:
    """The tree with each leaf replaced by function(path, leaf); None and empty branches go."""
    made = {}
    for name, branch in tree.items():
        here = (*path, name)
        new = _map(branch, function, here) if isinstance(branch, dict) else function(here, branch)
        if new:
            made[name] = new
    return made
