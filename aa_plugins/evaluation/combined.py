"""Statistics made of other statistics of the same images, resampled together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aa_plugins.evaluation.bootstrap import Statistic


class Combined:
    """A function of statistics, such as their mean.

    Args:
        function: of arrays (R,), one a statistic, to (R,); NaN where undefined.
        of: the statistics.
    """

    def __init__(self, function: Callable[..., np.ndarray], *of: Statistic):
        self.function, self.of = function, of
        self.images = of[0].images
        self.defined = min(statistic.defined for statistic in of)

    def estimate(self, weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            value = self.function(*(statistic.estimate(weights) for statistic in self.of))
        return np.where(np.isfinite(value), value, np.nan)

    def contributions(self) -> None:
        """Not known in general."""

    def paired(self, other: Combined) -> tuple[Combined, Combined]:
        """Both, each statistic on the images where it is defined for both."""
        pairs = [a.paired(b) for a, b in zip(self.of, other.of, strict=True)]
        return tuple(Combined(self.function, *side) for side in zip(*pairs))


def mean_of(*statistics: Statistic) -> Combined:
    """The mean of statistics."""
    return Combined(lambda *values: np.mean(values, axis=0), *statistics)


def percent_of(above: Statistic, below: Statistic) -> Combined:
    """One statistic in percent of another."""
    return Combined(lambda a, b: 100 * a / b, above, below)
