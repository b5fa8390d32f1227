"""Pairs each reward of a run with the entropy of the policy that earned it: the points of the law."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from ecrl.analysis import Floats
from ecrl.analysis.law import Law, fit_law
from ecrl.analysis.series import Series
from ecrl.config.eval_sets import VALIDATION_MEAN

ENTROPY = "policy/entropy"
TRAINING_REWARD = "rollout/reward"
_DEFAULT = re.compile(r"val/.*/avg@\d+")
#: Metrics whose names begin with one of these words are measured after the update of their iteration.
_VALIDATION = re.compile(r"(val|valid|validation|eval|evaluation|test)(?![^\W_])")


@dataclass(frozen=True)
class Points:
    """Points (H, R) of one run, in the order of training.

    Attributes:
        series: metrics of the run.
        iteration: ``[n]``, when R was measured.
        entropy: H ``[n]``, nats per token.
        reward: R ``[n]``.
        entropy_name: column of H.
        reward_name: column of R.
        width: number of iterations that were averaged; 1 for no averaging.
    """

    series: Series
    iteration: NDArray[np.int64]
    entropy: Floats
    reward: Floats
    entropy_name: str
    reward_name: str
    width: int

    @property
    def pairing(self) -> str:
        """Describe in words what was paired."""
        mean = f", trailing mean of {self.width}" if self.width > 1 else ""
        if is_validation(self.reward_name):
            return f"{self.reward_name} after update t with {self.entropy_name} of iteration t + 1{mean}"
        every = f", every {self.width} iterations" if self.width > 1 else ""
        return f"{self.reward_name} with {self.entropy_name} of the same iteration{mean}{every}"

    def law(self) -> Law:
        """Fit the law.

        Raises:
            ValueError: it cannot be fitted to these points; the message names the source.
        """
        try:
            return fit_law(self.entropy, self.reward)
        except ValueError as error:
            raise ValueError(f"{self.series.source}, {self.reward_name}: {error}") from None


def is_validation(name: str) -> bool:
    """Whether a metric is a validation, measured after the update of its iteration; judged by its name."""
    return _VALIDATION.match(name) is not None


def default_reward(series: Series) -> str:
    """Return the avg@k of a run's validation, or the training reward if it has none.

    Of several sets it is the mean, ``val/mean/avg@k``.
    """
    measured = [n for n, v in series.columns.items() if np.isfinite(v).any()]
    found = [n for n in measured if _DEFAULT.fullmatch(n)]
    several = len({n.rpartition("/")[0] for n in found}) > 1
    return VALIDATION_MEAN if several and VALIDATION_MEAN in measured else min(found, default=TRAINING_REWARD)


def pair(series: Series, reward: str | None = None, entropy: str = ENTROPY, width: int = 1) -> Points:
    """Pair each reward with the entropy of the policy that earned it.

    A training reward is paired with the entropy of the same rollout. A validation at iteration t follows
    update t, and the policy it tests samples the rollout of iteration t + 1; so it is paired with the
    entropy of that rollout (or of the next measured one, if not every iteration is logged). A validation
    that no rollout follows is left out.

    With ``width`` > 1, H is the trailing mean over ``width`` measured iterations. So is a training
    reward, and then only every ``width``-th point is kept: overlapping means have correlated errors, and
    the intervals would be too narrow. Validations are not averaged.

    Args:
        series: metrics of the run.
        reward: column of R; None for ``default_reward``.
        entropy: column of H, nats.
        width: number of iterations to average.

    Raises:
        ValueError: a column is missing, or no reward has an entropy to pair it with.
    """
    reward = reward or default_reward(series)
    h, r, t = series[entropy], series[reward], series.iteration
    if is_validation(reward):
        rollouts = np.flatnonzero(np.isfinite(h))
        means = smooth(h[rollouts], width)
        validations = np.flatnonzero(np.isfinite(r))
        after = np.searchsorted(t[rollouts], t[validations], side="right")
        kept, partner = validations[after < len(rollouts)], after[after < len(rollouts)]
        iteration, x, y = t[kept], means[partner], r[kept]
    else:
        kept = np.flatnonzero(np.isfinite(h) & np.isfinite(r))
        every = slice(width - 1, None, width)
        iteration, x, y = t[kept][every], smooth(h[kept], width)[every], smooth(r[kept], width)[every]
    if not len(x) and len(kept):
        raise ValueError(f"{series.source}: a mean of {width} takes as many iterations, got {len(kept)}.")
    if not len(x):
        when = "after" if is_validation(reward) else "in"
        raise ValueError(
            f"{series.source}: {entropy!r} was never measured {when} an iteration of {reward!r}."
        )
    return Points(series, iteration, x, y, entropy, reward, width)


def smooth(values: ArrayLike, width: int) -> Floats:
    """Trailing mean ``[n]``: each value is averaged with the ``width`` − 1 before it (fewer at the start).

    Raises:
        ValueError: ``width`` is below 1.
    """
    if width < 1:
        raise ValueError(f"a mean takes 1 or more values, got {width}.")
    x = np.asarray(values, float)
    incomplete = min(width, len(x)) - 1  # the first values have fewer before them
    if incomplete <= 0:
        return x
    start = np.cumsum(x[:incomplete]) / np.arange(1, incomplete + 1)
    return np.concatenate([start, sliding_window_view(x, incomplete + 1).mean(1)])
