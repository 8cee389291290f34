"""The block length that is best for the variance of a mean, from the data.

Politis & White, Automatic block-length selection for the dependent bootstrap, Econometric Reviews
23 (2004), with the correction of Patton, Politis & White, Econometric Reviews 28 (2009), for the
circular block bootstrap. The bandwidth is twice the lag after which correlations stay small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def block_length(series: Sequence[np.ndarray]) -> float:
    """The length in frames, 1 or more.

    Args:
        series: a value a frame, of one sequence or of several; correlations are taken within
            sequences, about the mean of all.
    """
    count = sum(map(len, series))
    centre = sum(float(values.sum()) for values in series) / count
    in_a_row = max(5, math.ceil(math.sqrt(math.log10(count)))) if count > 1 else 5
    longest = min(math.ceil(math.sqrt(count)) + in_a_row, count - 1)
    covariances = np.zeros(longest + 1)
    for values in series:
        values = values - centre
        for lag in range(min(longest, len(values) - 1) + 1):
            covariances[lag] += values[lag:] @ values[: len(values) - lag]
    covariances /= count
    if covariances[0] <= 1e-12 * max(1.0, centre**2) or longest < 1:
        return 1.0
    small = np.abs(covariances / covariances[0]) < 2 * math.sqrt(math.log10(count) / count)
    bandwidth = min(2 * _last_lag(small, in_a_row), longest)
    lags = np.arange(-bandwidth, bandwidth + 1)
    # A trapezoid of flat top.
    window = np.clip(2 * (1 - np.abs(lags) / bandwidth), 0, 1)
    weighted = window * covariances[np.abs(lags)]
    spectrum, slope = weighted.sum(), (np.abs(lags) * weighted).sum()
    if spectrum <= 0:
        return 1.0
    length = (2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3) * count ** (1 / 3)
    return float(max(1.0, min(length, math.ceil(min(3 * math.sqrt(count), count / 3)))))


def _last_lag(small: np.ndarray, in_a_row: int) -> int:
    """The first lag from 1 from which on a whole row of correlations is small, or the longest."""
    for lag in range(1, len(small) - in_a_row + 1):
        if small[lag : lag + in_a_row].all():
            return lag
    return len(small) - 1
