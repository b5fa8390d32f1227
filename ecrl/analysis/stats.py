"""Figures over seeds: means, paired differences and bands, with Student's t intervals.

    mean ± t(confidence, n − 1) · s / √n        s: standard deviation over seeds, n − 1 in its denominator

Seeds are independent runs, so n counts seeds, never iterations or problems. Arms of a comparison share
seeds (hence initial weights, problems and random numbers): their difference is taken seed by seed first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ecrl.analysis import Floats
from ecrl.errors import UsageError


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided interval, in the unit of the values.

    Attributes:
        mean: over the values.
        low: lower end; NaN where one value alone tells nothing of the spread.
        high: upper end; likewise.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half of the width."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside; False where there is no interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Band:
    """A mean curve over seeds with its pointwise interval; each ``[T]``, in the unit of the values.

    Attributes:
        mean: over the seeds measured at each point; NaN where none was.
        low: lower end; NaN where fewer than two were.
        high: upper end; likewise.
        n: seeds measured at each point.
    """

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]


def interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of ``[n]`` values, n ≥ 1, and its t interval.

    Raises:
        UsageError: no values, values that are not finite, or a confidence outside (0, 1).
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise UsageError(f"an interval takes one or more finite numbers, got {x.tolist()}.")
    of = band(x[:, None], confidence)
    return Interval(float(of.mean[0]), float(of.low[0]), float(of.high[0]), len(x))


def paired(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95
) -> Interval | None:
    """Mean of ``values − baseline``, seed by seed, and its t interval.

    Args:
        values: figure of each seed.
        baseline: figure of each seed; seeds that only one side has are left out.
        confidence: of the interval, in (0, 1).

    Returns:
        The difference; None where the two have no seed in common.
    """
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[s] - baseline[s] for s in shared], confidence) if shared else None


def band(values: ArrayLike, confidence: float = 0.95) -> Band:
    """Mean over seeds and its t interval at each point.

    Args:
        values: ``[S, T]``, seeds by points; NaN where not measured.
        confidence: of the interval at each point (not of the curve as a whole), in (0, 1).

    Raises:
        UsageError: the array has another shape, or the confidence is outside (0, 1).
    """
    x = np.asarray(values, float)
    if x.ndim != 2:
        raise UsageError(f"a band takes seeds by points, got shape {x.shape}.")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, got {confidence}.")
    measured = np.isfinite(x)
    n = measured.sum(0)
    filled = np.where(measured, x, 0.0)
    mean = np.divide(filled.sum(0), n, out=np.full(x.shape[1], np.nan), where=n > 0)
    squares = (np.where(measured, x - mean, 0.0) ** 2).sum(0)
    variance = np.divide(squares, n - 1, out=np.full(x.shape[1], np.nan), where=n > 1)
    half = stats.t.ppf(0.5 + confidence / 2, np.maximum(n - 1, 1)) * np.sqrt(variance / np.maximum(n, 1))
    return Band(mean, mean - half, mean + half, n)
