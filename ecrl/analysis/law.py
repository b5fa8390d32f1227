"""The entropy law: reward as a function of policy entropy.

    R = −a·exp(H) + b        H in nats a token; R, a and b in units of the reward

The ceiling −a + b is what the law gives for a policy whose entropy is spent (H = 0). Source:
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
from ecrl.errors import UsageError

Range = tuple[float, float]

#: Fewest points of a fit: three are left over to judge it by.
MIN_POINTS = 5
#: Least span of H, nats. Below it exp(H) is a constant and a is the noise's.
MIN_SPAN = 0.01
#: Largest H, nats a token: the logarithm of a vocabulary of 500 million. Above it, it is something else.
MAX_ENTROPY = 20.0
#: Largest reward; squares of it stay far from the largest float.
MAX_REWARD = 1e100
#: Most numbers drawn at once by the bootstrap.
_BLOCK = 2**22


@dataclass(frozen=True)
class Law:
    """A fitted law R = −a·exp(H) + b.

    Standard errors and intervals take the points' errors for independent; ``autocorrelation`` says
    whether they are. Intervals are two-sided at ``confidence``, from the bootstrap.

    Attributes:
        a: reward that is bought by a unit of exp(H).
        b: reward as exp(H) → 0, which no policy reaches.
        a_se: standard error of a.
        b_se: standard error of b.
        a_interval: of a.
        b_interval: of b.
        ceiling: −a + b, the reward at H = 0.
        ceiling_se: its standard error.
        ceiling_interval: of the ceiling.
        r2: share of the reward's variance that the law explains.
        rmse: root of the mean squared residual, units of the reward.
        autocorrelation: of each residual with the next, in the order of the points; near 0 if independent.
        points: number of points.
        confidence: of the intervals.
        line: the fit as R = a·x + b over x = −exp(H).
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
        """Whether the residuals' autocorrelation is beyond what independent ones show, 2/√n."""
        return self.autocorrelation > 2 / math.sqrt(self.points)

    def predict(self, entropy: ArrayLike) -> Floats:
        """Reward ``[n]`` at the entropies ``[n]``, nats."""
        return np.asarray(self.line.at(-np.exp(np.asarray(entropy, float))), float)

    def band(self, entropy: ArrayLike) -> tuple[Floats, Floats]:
        """Lower and upper end ``[n]`` of the curve's t interval at the entropies ``[n]``, nats."""
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
        entropy: H ``[n]``, nats a token, in the order of training.
        reward: R ``[n]``, any unit.
        confidence: of the intervals, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap; the same data and seed give the same intervals.

    Raises:
        UsageError: the data cannot carry a fit, with the reason.
    """
    h, r = np.asarray(entropy, float), np.asarray(reward, float)
    _refuse(h, r)
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
    """Standard errors of a, b (x = 0) and ceiling (x = −1) for errors of unit variance."""
    return np.array([line.scatter**-0.5, line.unit_error(0.0), line.unit_error(-1.0)])


def _bootstrap(
    x: Floats, residuals: Floats, line: Line, confidence: float, resamples: int, seed: int
) -> tuple[Floats, Floats]:
    """Lower and upper quantiles ``[3]`` of (estimate − truth) / standard error, for a, b and ceiling.

    Residuals are drawn anew at fixed x and the fit is repeated (bootstrap-t). Unlike percentiles of
    the estimates, this keeps its rate with few points.
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
        # All errors may be 0, or a draw fall on a line: no error at all there, or an infinite ratio.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(
                np.nan_to_num(moved / (sigma[:, None] * _unit_errors(line)), posinf=1e9, neginf=-1e9)
            )
    low, high = np.quantile(np.concatenate(ratios), [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    return low, high


def _refuse(entropy: Floats, reward: Floats) -> None:
    if entropy.ndim != 1 or entropy.shape != reward.shape:
        raise UsageError(
            f"a fit takes as many entropies as rewards, got shapes {entropy.shape} and {reward.shape}."
        )
    if len(entropy) < MIN_POINTS:
        raise UsageError(f"a fit takes at least {MIN_POINTS} points, got {len(entropy)}.")
    for name, values in (("entropy", entropy), ("reward", reward)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            raise UsageError(f"{name} of point {wrong[0] + 1} is {values[wrong[0]]}, no finite number.")
    if entropy.min() < 0 or entropy.max() > MAX_ENTROPY:
        raise UsageError(
            f"entropy goes from {entropy.min():.4g} to {entropy.max():.4g}; in nats a token it lies between "
            f"0 and {MAX_ENTROPY:.0f} (a sum over a response or a negated loss does not do)."
        )
    if np.ptp(entropy) < MIN_SPAN:
        raise UsageError(
            f"entropy moves by {np.ptp(entropy):.2g} nats only; it takes {MIN_SPAN} to tell a and b apart."
        )
    if np.abs(reward).max() > MAX_REWARD:
        raise UsageError(f"a reward is {np.abs(reward).max():.3g} in size, over {MAX_REWARD:g}: no reward.")
    if np.ptp(reward) == 0:
        raise UsageError(f"the reward is {reward[0]:.4g} at every point; there is nothing to explain.")


@dataclass(frozen=True)
class Forecast:
    """What a fit on the first points said of the rest.

    It says R for a given H; H itself is the measured one, as in the source.

    Attributes:
        share: of the points that were fitted.
        fitted: how many these are.
        rmse: over the rest, units of the reward.
        final_error: predicted minus measured reward at the last point.
        law: the fit.
    """

    share: float
    fitted: int
    rmse: float
    final_error: float
    law: Law


def forecast(entropy: ArrayLike, reward: ArrayLike, share: float) -> Forecast:
    """Fit the first ``share`` of the points, predict the rest.

    Args:
        entropy: H ``[n]``, nats a token, in the order of training.
        reward: R ``[n]``.
        share: in (0, 1); rounded to the nearest number of points.

    Raises:
        UsageError: the first points cannot carry a fit, or no others are left.
    """
    h, r = np.asarray(entropy, float), np.asarray(reward, float)
    count = round(share * len(h))
    if not 0 < share < 1 or count >= len(h):
        raise UsageError(f"a share of {share} of {len(h)} points leaves none to predict.")
    law = fit_law(h[:count], r[:count])
    errors = law.predict(h[count:]) - r[count:]
    return Forecast(share, count, float(np.sqrt((errors**2).mean())), float(errors[-1]), law)


@dataclass(frozen=True)
class Scaling:
    """a and b over model size: a = a_line.at(ln size), b likewise.

    Attributes:
        a: line of a over ln(size).
        b: line of b over ln(size).
        confidence: of the intervals.
    """

    a: Line
    b: Line
    confidence: float

    def predict(self, size: float) -> tuple[float, float]:
        """Return a and b of a model of that size."""
        return float(self.a.at(np.log(size))), float(self.b.at(np.log(size)))

    def intervals(self, size: float) -> tuple[Range, Range]:
        """Prediction intervals of a and b for one more model of that size, from t."""
        ends = []
        for line, value in zip((self.a, self.b), self.predict(size), strict=True):
            half = float(line.half_width(np.log(size), self.confidence, new=True))
            ends.append((value - half, value + half))
        return ends[0], ends[1]


def scaling(sizes: Sequence[float], laws: Sequence[Law], *, confidence: float = 0.95) -> Scaling:
    """Fit a and b log-linearly in model size.

    Args:
        sizes: parameters, in any one unit.
        laws: of these models, on the same task and data: a and b depend on them.
        confidence: of the intervals of an extrapolation.

    Raises:
        UsageError: fewer than three sizes, or a size that is none.
    """
    values = np.asarray(sizes, float)
    if len(values) != len(laws):
        raise UsageError(f"{len(laws)} laws take as many sizes, got {len(values)}.")
    if not (np.isfinite(values) & (values > 0)).all():
        raise UsageError(f"a model size is a number above 0, got {min(sizes)}.")
    if len(set(values.tolist())) < 3:
        raise UsageError(
            f"a line over model size takes three sizes or more, got {len(set(values.tolist()))}: two lie on "
            "a line whatever they are."
        )
    logs = np.log(values)
    a, b = (fit_line(logs, np.array([getattr(law, name) for law in laws])) for name in "ab")
    return Scaling(a, b, confidence)
