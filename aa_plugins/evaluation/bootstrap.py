"""Paired bootstrap over images, or over what images come in.

The views of one image depend on one another, so the sample is the image: resamples draw images, or
blocks of frames, or sequences (:mod:`aa_plugins.evaluation.resampling`), with replacement, and
everything measured on an image comes with it. A statistic of two models compared sees the same
resamples in both. Intervals are percentile intervals (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13), stretched about the value where units ask for it.

With three trainings (seeds) or more an average has a second interval: how it would differ on other
images *and* with other seeds. Seeds are drawn with replacement beside the units, and what they add
is stretched by Student's t and the bias of a variance over n: of three seeds a plain resample finds
too little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from scipy.stats import norm, t

from aa_plugins.evaluation.resampling import CONFIDENCE, Blocks, Images, Units, resampled_weights

RESAMPLES = 10_000
SEEDS_TO_RESAMPLE = 3


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

    def contributions(self) -> np.ndarray | None:
        """(N,) how far each image moves the value, up to a factor; None if that isn't known."""

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

    def contributions(self) -> np.ndarray:
        below = self.denominators.sum(0)
        known = below > 0
        above, parts = self.numerators[:, known], self.denominators[:, known]
        ratios = above.sum(0) / below[known]
        return self.scale * ((above - ratios * parts) / below[known]).sum(1)

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

    def contributions(self) -> np.ndarray | None:
        found = [part.contributions() for part in self.parts]
        return None if any(values is None for values in found) else np.mean(found, axis=0)

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


def intervals(
    tree: dict, resamples: int = RESAMPLES, seed: int = 0, units: Units | None = None
) -> dict:
    """A tree of statistics to the same tree of ``{"value", "low", "high", "images", "unit"}``.

    ``low`` and ``high`` bound the 95 % interval; None with fewer than two images. An undefined
    value is None. ``unit`` is what was resampled, with the length in frames of a ``block`` beside
    it; averages of enough trainings have ``seeds_low`` and ``seeds_high``, too.
    """
    leaves = {path: (leaf,) for path, leaf in _leaves(tree)}
    found = _found(leaves, resamples, seed, units or Images())

    def entry(path: tuple, _: Statistic) -> dict:
        (value,), rest = found[path]
        return {"value": _number(value), **rest}

    return _map(tree, entry)


def differences(
    tree_a: dict,
    tree_b: dict,
    resamples: int = RESAMPLES,
    seed: int = 0,
    units: Units | None = None,
) -> dict:
    """Two models' trees on the same images in the same order to a tree of paired differences: as in
    :func:`intervals`, with ``{"a", "b", "difference"}`` for the value, difference = b - a.

    Statistics that only one of the trees has are left out; a mean is taken over the images where it
    is defined for both.
    """
    leaves_a, leaves_b = dict(_leaves(tree_a)), dict(_leaves(tree_b))
    shared = {path: leaves_a[path].paired(leaves_b[path]) for path in leaves_a if path in leaves_b}
    found = _found(shared, resamples, seed, units or Images())

    def entry(path: tuple, _: Statistic) -> dict | None:
        if path not in shared:
            return None
        (a, b), rest = found[path]
        return {"a": _number(a), "b": _number(b), "difference": _number(b - a), **rest}

    return _map(tree_a, entry)


def _found(
    leaves: dict[tuple, tuple[Statistic, ...]], resamples: int, seed: int, units: Units
) -> dict[tuple, tuple[list[float], dict]]:
    """Path to the values of one statistic, or of two to take the difference of, and to the
    interval. Statistics of the same units see the same resamples."""
    images = max((leaf.images for pair in leaves.values() for leaf in pair), default=0)
    groups: dict[Units, list[tuple]] = {}
    for path, pair in leaves.items():
        groups.setdefault(units.fitted(_series(pair)), []).append(path)
    found = {}
    for fitted, paths in groups.items():
        draws: dict[tuple, list] = {path: [] for path in paths}
        for weights in resampled_weights(images, resamples, seed, fitted):
            for path in paths:
                draws[path].append(_parts(leaves[path], weights))
        for path in paths:
            pair = leaves[path]
            values = [float(leaf.estimate(np.ones((1, images)))[0]) for leaf in pair]
            defined = min(leaf.defined for leaf in pair)
            drawn = np.concatenate(draws[path], axis=1)
            found[path] = values, _interval(values, drawn, defined, fitted, seed)
    return found


def _series(pair: tuple[Statistic, ...]) -> list[np.ndarray]:
    """What images contribute to a statistic or a difference; empty if unknown."""
    found = [leaf.contributions() for leaf in pair]
    if any(values is None for values in found):
        return []
    return [found[-1] - found[0] if len(found) == 2 else found[0]]


def _parts(pair: tuple[Statistic, ...], weights: np.ndarray) -> np.ndarray:
    """(trainings, R) estimates under weights, of a statistic or of a difference."""
    sides = [
        np.stack([p.estimate(weights) for p in getattr(leaf, "parts", (leaf,))]) for leaf in pair
    ]
    return sides[-1] - sides[0] if len(sides) == 2 else sides[0]


def _interval(
    values: list[float], drawn: np.ndarray, defined: int, units: Units, seed: int
) -> dict:
    """What an entry says beside its value, from (trainings, R) estimates."""
    value = values[-1] - values[0] if len(values) == 2 else values[0]
    over_units = units.stretch * (drawn.mean(0) - value)
    low, high = _bounds(value, over_units, defined)
    said = {"low": low, "high": high, "images": defined, "unit": units.unit}
    if isinstance(units, Blocks):
        said["block"] = units.length
    seeds = len(drawn)
    if seeds >= SEEDS_TO_RESAMPLE:
        chosen = np.random.default_rng(seed).integers(0, seeds, (seeds, drawn.shape[1]))
        level = (1 + CONFIDENCE) / 2
        stretch = t.ppf(level, seeds - 1) / norm.ppf(level) * math.sqrt(seeds / (seeds - 1))
        over_seeds = np.take_along_axis(drawn, chosen, 0).mean(0) - drawn.mean(0)
        low, high = _bounds(value, over_units + stretch * over_seeds, defined)
        said.update(seeds_low=low, seeds_high=high)
    return said


def _bounds(value: float, deviations: np.ndarray, images: int) -> tuple[float | None, float | None]:
    draws = value + deviations[np.isfinite(deviations)]
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
