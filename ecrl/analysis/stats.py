"""Statistics over seeds: means, paired differences and bands, with Student's t intervals.

    mean ± t(confidence, n − 1) · s / √n        s: standard deviation over seeds, with denominator n − 1

Seeds are independent runs, so n counts seeds, never iterations or problems. Arms of a comparison share
seeds (hence initial weights, problems and random numbers), so differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ecrl.analysis import Floats


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided interval, in the unit of the values.

    Attributes:
        mean: mean of the values.
        low: lower end; NaN for a single value.
        high: upper end; NaN for a single value.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False for a single value."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Band:
    """A mean curve over seeds with its pointwise interval; each ``[T]``, in the unit of the values.

    Attributes:
        mean: mean over the seeds measured at each point; NaN where there is none.
        low: lower end; NaN where fewer than two seeds were measured.
        high: upper end; NaN where fewer than two seeds were measured.
        n: number of seeds measured at each point.
    """

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]


def interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the mean of ``[n]`` values, n ≥ 1, and its t interval.

    Raises:
        ValueError: there are no values, one is not finite, or the confidence is outside (0, 1).
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"an interval takes one or more finite numbers, got {x.tolist()}.")
    of = band(x[:, None], confidence)
    return Interval(float(of.mean[0]), float(of.low[0]), float(of.high[0]), len(x))


def paired(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95
) -> Interval | None:
    """Return the mean of ``values − baseline``, taken seed by seed, and its t interval.

    Args:
        values: the value of each seed.
        baseline: the value of each seed; seeds that only one of the two has are left out.
        confidence: confidence level of the interval, in (0, 1).

    Returns:
        The mean difference; None if the two have no seed in common.

    Raises:
        ValueError: a difference is not finite, or the confidence is outside (0, 1).
    """
    shared = sorted(values.keys() & baseline.keys())
    return interval([values[s] - baseline[s] for s in shared], confidence) if shared else None


def band(values: ArrayLike, confidence: float = 0.95) -> Band:
    """Return the mean over seeds and its t interval at each point.

    Args:
        values: ``[S, T]``, seeds by points; NaN where not measured.
        confidence: confidence level at each point (not of the curve as a whole), in (0, 1).

    Raises:
        ValueError: the array does not have two dimensions, or the confidence is outside (0, 1).
    """
    x = np.asarray(values, float)
    if x.ndim != 2:
        raise ValueError(f"a band takes seeds by points, got shape {x.shape}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    measured = np.isfinite(x)
    n = measured.sum(0)
    filled = np.where(measured, x, 0.0)
    mean = np.divide(filled.sum(0), n, out=np.full(x.shape[1], np.nan), where=n > 0)
    squares = (np.where(measured, x - mean, 0.0) ** 2).sum(0)
    variance = np.divide(squares, n - 1, out=np.full(x.shape[1], np.nan), where=n > 1)
    half = stats.t.ppf(0.5 + confidence / 2, np.maximum(n - 1, 1)) * np.sqrt(variance / np.maximum(n, 1))
    return Band(mean, mean - half, mean + half, n)


def differences_to_first(values: ArrayLike, confidence: float = 0.95) -> list[Interval]:
    """Return each further arm's mean difference to the first, with a spread pooled over all arms.

        difference ± t(1 − (1 − confidence) / (2·(A − 1)), (A − 1)·(S − 1)) · s · √(2 / S)

    s² is the mean square of what arm and seed leave unexplained, x − mean of the arm − mean of the seed +
    mean of all, over (A − 1)·(S − 1) degrees of freedom. It takes the spread as equal in all arms: with two
    seeds each, there is no other way to a useful interval. All A − 1 intervals hold together (Bonferroni).

    Args:
        values: ``[A, S]``, arms by the seeds that all of them have.
        confidence: that all intervals hold, in (0, 1).

    Raises:
        ValueError: there are fewer than two arms or two seeds, or a value is not finite.
    """
    x = np.asarray(values, float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(f"differences take two or more arms by two or more seeds, got shape {x.shape}.")
    arms, seeds = x.shape
    freedom = (arms - 1) * (seeds - 1)
    residuals = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    spread = float(np.sqrt((residuals**2).sum() / freedom * 2 / seeds))
    half = float(stats.t.ppf(1 - (1 - confidence) / (2 * (arms - 1)), freedom)) * spread
    return [Interval(m, m - half, m + half, seeds) for m in (x[1:] - x[0]).mean(1).tolist()]
