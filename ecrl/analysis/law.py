"""The entropy law: reward as a function of policy entropy.

    R = −a·exp(H) + b        H in nats per token; R, a and b in units of the reward

The ceiling −a + b is the predicted reward of a policy without entropy (H = 0). Source:
https://arxiv.org/abs/2505.22617, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ecrl.analysis import Floats
from ecrl.analysis.line import Line, fit_line

Range = tuple[float, float]

#: Fewest points of a fit: it leaves three degrees of freedom.
MIN_POINTS = 5
#: Smallest range of H, nats. Below it exp(H) is nearly constant and noise decides a.
MIN_SPAN = 0.01
#: Largest H, nats per token: the logarithm of a vocabulary of 500 million.
MAX_ENTROPY = 20.0
#: Largest reward; its square stays far below the largest float.
MAX_REWARD = 1e100
#: Largest number of values that the bootstrap draws at once.
_BLOCK = 2**22


@dataclass(frozen=True)
class Law:
    """A fitted law R = −a·exp(H) + b.

    Standard errors and intervals assume that the points' errors are independent; ``autocorrelation``
    shows whether they are. Intervals are two-sided bootstrap intervals at ``confidence``.

    Attributes:
        a: reward gained per unit of exp(H) that is given up.
        b: limit of the reward for exp(H) → 0, which no policy reaches.
        a_se: standard error of a.
        b_se: standard error of b.
        a_interval: interval of a.
        b_interval: interval of b.
        ceiling: −a + b, the reward at H = 0.
        ceiling_se: standard error of the ceiling.
        ceiling_interval: interval of the ceiling.
        r2: share of the reward's variance that the law explains.
        rmse: root mean squared residual, in units of the reward.
        autocorrelation: lag-1 autocorrelation of the residuals in the order of the points; near 0 if
            they are independent.
        points: number of points.
        confidence: confidence level of the intervals.
        line: the same fit as R = a·x + b over x = −exp(H).
    """

    a: float
    b: float
    a_se: float
    b_se: float
    a_interval: Range
    b_interval: Range
    ceiling: float
    ceiling_se: float
    ceiling_interval: Range
    r2: float
    rmse: float
    autocorrelation: float
    points: int
    confidence: float
    line: Line

    @property
    def correlated(self) -> bool:
        """Whether the autocorrelation exceeds 2/√n, the bound for independent residuals."""
        return self.autocorrelation > 2 / math.sqrt(self.points)

    def predict(self, entropy: ArrayLike) -> Floats:
        """Predict the reward ``[n]`` at the entropies ``[n]``, nats."""
        return np.asarray(self.line.at(-np.exp(np.asarray(entropy, float))), float)

    def band(self, entropy: ArrayLike) -> tuple[Floats, Floats]:
        """Return the ends ``[n]``, ``[n]`` of the curve's t interval at the entropies ``[n]``, nats."""
        half = self.line.half_width(-np.exp(np.asarray(entropy, float)), self.confidence)
        return self.predict(entropy) - half, self.predict(entropy) + half


def fit_law(
    entropy: ArrayLike,
    reward: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Law:
    """Fit R = −a·exp(H) + b by least squares.

    Args:
        entropy: H ``[n]``, nats per token, in the order of training.
        reward: R ``[n]``, in any unit.
        confidence: confidence level of the intervals, in (0, 1).
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap; the same data and seed give the same intervals.

    Raises:
        ValueError: the law cannot be fitted to these points; the message says why.
    """
    h, r = np.asarray(entropy, float), np.asarray(reward, float)
    _check_points(h, r)
    line = fit_line(-np.exp(h), r)
    residuals = r - line.at(-np.exp(h))
    low, high = _bootstrap(-np.exp(h), residuals, line, confidence, resamples, seed)
    a, b, ceiling = line.slope, line.intercept, float(line.at(-1.0))
    errors = line.sigma * _unit_errors(line)
    centre = np.array([a, b, ceiling])
    intervals = np.stack([centre - high * errors, centre - low * errors], axis=1).tolist()
    square = (residuals**2).sum()
    return Law(
        a=a,
        b=b,
        a_se=float(errors[0]),
        b_se=float(errors[1]),
        a_interval=tuple(intervals[0]),
        b_interval=tuple(intervals[1]),
        ceiling=ceiling,
        ceiling_se=float(errors[2]),
        ceiling_interval=tuple(intervals[2]),
        r2=line.r2,
        rmse=float(np.sqrt(square / len(r))),
        autocorrelation=float((residuals[1:] * residuals[:-1]).sum() / square) if square else 0.0,
        points=len(r),
        confidence=confidence,
        line=line,
    )


def _unit_errors(line: Line) -> Floats:
    """Standard errors ``[3]`` of a, b (x = 0) and ceiling (x = −1) for errors of unit variance."""
    return np.array([line.scatter**-0.5, line.unit_error(0.0), line.unit_error(-1.0)])


def _bootstrap(
    x: Floats, residuals: Floats, line: Line, confidence: float, resamples: int, seed: int
) -> tuple[Floats, Floats]:
    """Lower and upper quantiles ``[3]`` of (estimate − truth) / standard error, for a, b and ceiling.

    Residuals are resampled at fixed x and the fit is repeated (bootstrap-t). With few points these
    intervals still cover at their nominal rate; percentiles of the estimates do not.
    """
    n, rng = len(x), np.random.default_rng(seed)
    leverage = line.unit_error(x) ** 2
    pool = residuals / np.sqrt(np.maximum(1 - leverage, 1e-12))
    pool = pool - pool.mean()
    ratios = []
    for start in range(0, resamples, max(_BLOCK // n, 1)):
        count = min(max(_BLOCK // n, 1), resamples - start)
        drawn = pool[rng.integers(n, size=(count, n))]
        mean = drawn.mean(1)
        slope = drawn @ (x - line.center) / line.scatter
        left = ((drawn - mean[:, None]) ** 2).sum(1) - slope**2 * line.scatter
        sigma = np.sqrt(np.maximum(left, 0) / (n - 2))
        moved = np.stack([slope, mean - line.center * slope, mean - (1 + line.center) * slope], axis=1)
        # If all residuals are 0, the ratio is 0/0; if a resample lies on a line, it is infinite.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(
                np.nan_to_num(moved / (sigma[:, None] * _unit_errors(line)), posinf=1e9, neginf=-1e9)
            )
    low, high = np.quantile(np.concatenate(ratios), [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return low, high


def _check_points(entropy: Floats, reward: Floats) -> None:
    if entropy.ndim != 1 or entropy.shape != reward.shape:
        raise ValueError(
            f"a fit takes as many entropies as rewards, got shapes {entropy.shape} and {reward.shape}."
        )
    if len(entropy) < MIN_POINTS:
        raise ValueError(f"a fit takes at least {MIN_POINTS} points, got {len(entropy)}.")
    for name, values in (("entropy", entropy), ("reward", reward)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise ValueError(f"{name} of point {wrong[0] + 1} is {values[wrong[0]]}, not a finite number.")
    if entropy.min() < 0 or entropy.max() > MAX_ENTROPY:
        raise ValueError(
            f"entropy goes from {entropy.min():.4g} to {entropy.max():.4g}; in nats per token it lies "
            f"between 0 and {MAX_ENTROPY:.0f} (is this a sum over a response or a negated loss?)."
        )
    if np.ptp(entropy) < MIN_SPAN:
        raise ValueError(
            f"entropy moves by {np.ptp(entropy):.2g} nats only; a and b need at least {MIN_SPAN}."
        )
    if np.abs(reward).max() > MAX_REWARD:
        raise ValueError(f"a reward has the size {np.abs(reward).max():.3g}, over {MAX_REWARD:g}: no reward.")
    if np.ptp(reward) == 0:
        raise ValueError(f"the reward is {reward[0]:.4g} at every point; a fit needs rewards that differ.")


@dataclass(frozen=True)
class Forecast:
    """How well a fit on the first points predicts the rest.

    It predicts R from the measured H, as in the source; H itself is not predicted.

    Attributes:
        share: share of the points that were fitted.
        fitted: number of points that were fitted.
        rmse: root mean squared error over the rest, in units of the reward.
        final_error: predicted minus measured reward at the last point.
        law: the fit.
    """

    share: float
    fitted: int
    rmse: float
    final_error: float
    law: Law


def forecast(entropy: ArrayLike, reward: ArrayLike, share: float) -> Forecast:
    """Fit the law to the first ``share`` of the points and predict the rest.

    Args:
        entropy: H ``[n]``, nats per token, in the order of training.
        reward: R ``[n]``.
        share: share of the points to fit, in (0, 1); rounded to the nearest number of points.

    Raises:
        ValueError: the law cannot be fitted to the first points, or no points are left.
    """
    h, r = np.asarray(entropy, float), np.asarray(reward, float)
    count = round(share * len(h))
    if not 0 < share < 1 or count >= len(h):
        raise ValueError(f"a share of {share} of {len(h)} points leaves none to predict.")
    law = fit_law(h[:count], r[:count])
    errors = law.predict(h[count:]) - r[count:]
    return Forecast(share, count, float(np.sqrt((errors**2).mean())), float(errors[-1]), law)


@dataclass(frozen=True)
class Scaling:
    """The law's a and b as straight lines over ln(model size).

    Attributes:
        a: line of a over ln(size).
        b: line of b over ln(size).
        confidence: confidence level of the intervals.
    """

    a: Line
    b: Line
    confidence: float

    def predict(self, size: float) -> tuple[float, float]:
        """Predict a and b of a model of that size."""
        return float(self.a.at(np.log(size))), float(self.b.at(np.log(size)))

    def intervals(self, size: float) -> tuple[Range, Range]:
        """Return the t prediction intervals of a and b for one more model of that size."""
        ends = []
        for line, value in zip((self.a, self.b), self.predict(size), strict=True):
            half = float(line.half_width(np.log(size), self.confidence, new=True))
            ends.append((value - half, value + half))
        return ends[0], ends[1]


def scaling(sizes: Sequence[float], laws: Sequence[Law], *, confidence: float = 0.95) -> Scaling:
    """Fit a and b as lines over the logarithm of model size.

    Args:
        sizes: number of parameters of each model, all in one unit.
        laws: the models' laws on the same task and data, because a and b depend on both.
        confidence: confidence level of the prediction intervals.

    Raises:
        ValueError: there are fewer than three different sizes, a size is not a number above 0, or there
            are not as many sizes as laws.
    """
    values = np.asarray(sizes, float)
    if len(values) != len(laws):
        raise ValueError(f"{len(laws)} laws take as many sizes, got {len(values)}.")
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"a model size is a number above 0, got {min(sizes)}.")
    if len(set(values.tolist())) < 3:
        raise ValueError(
            f"a line over model size takes three sizes or more, got {len(set(values.tolist()))}: any two "
            "points lie on a line."
        )
    logs = np.log(values)
    a, b = (fit_line(logs, np.array([getattr(law, name) for law in laws])) for name in "ab")
    return Scaling(a, b, confidence)
