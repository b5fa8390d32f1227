"""Which entropy belongs to which reward: from a run's columns to the points of the law."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from ecrl.analysis import Floats
from ecrl.analysis.law import Law, fit_law
from ecrl.analysis.series import Series
from ecrl.errors import UsageError

ENTROPY = "policy/entropy"
TRAINING_REWARD = "rollout/reward"
_DEFAULT = re.compile(r"val/.*/avg@\d+")
#: How the names of metrics begin that are measured after the update of their iteration: with a whole word.
_VALIDATION = re.compile(r"(val|valid|validation|eval|evaluation|test)(?![^\W_])")


@dataclass(frozen=True)
class Points:
    """Points (H, R) of one run, in the order of training.

    Attributes:
        series: the run.
        iteration: ``[n]``, where R was measured.
        entropy: H ``[n]``, nats a token.
        reward: R ``[n]``.
        entropy_name: column of H.
        reward_name: column of R.
        width: iterations that a mean was taken over; 1 for none.
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
        """What was paired, in words."""
        mean = f", trailing mean of {self.width}" if self.width > 1 else ""
        if is_validation(self.reward_name):
            return f"{self.reward_name} after update t with {self.entropy_name} of iteration t + 1{mean}"
        every = f", every {self.width} iterations" if self.width > 1 else ""
        return f"{self.reward_name} with {self.entropy_name} of the same iteration{mean}{every}"

    def law(self) -> Law:
        """Fit the law.

        Raises:
            UsageError: these points cannot carry it; names the source.
        """
        try:
            return fit_law(self.entropy, self.reward)
        except UsageError as error:
            raise UsageError(f"{self.series.source}, {self.reward_name}: {error}") from None


def is_validation(name: str) -> bool:
    """Whether a metric is measured after the update of its iteration, by how its name begins."""
    return _VALIDATION.match(name) is not None


def default_reward(series: Series) -> str:
    """Return the first ``val/*/avg@*`` of a run, the training reward where there is none."""
    found = (n for n, v in series.columns.items() if _DEFAULT.fullmatch(n) and np.isfinite(v).any())
    return min(found, default=TRAINING_REWARD)


def pair(series: Series, reward: str | None = None, entropy: str = ENTROPY, width: int = 1) -> Points:
    """Pair each reward with the entropy of the policy that earned it.

    A training reward belongs to the entropy of the same rollout. A validation at iteration t comes
    after update t: its policy draws the rollout of iteration t + 1, so that rollout's entropy is
    taken (the next one measured, where not every iteration is logged), and a validation that no
    rollout follows is left out.

    With ``width`` > 1, H is the trailing mean over ``width`` measured iterations. So is a training
    reward, and only every ``width``-th point is kept: means that overlap would err alike, and the
    intervals would be too narrow. Validations stay as they are.

    Args:
        series: the run.
        reward: column of R; None for ``default_reward``.
        entropy: column of H, nats.
        width: see above.

    Raises:
        UsageError: a column is missing, or no reward has its entropy.
    """
    reward = reward or default_reward(series)
    h, r, t = series[entropy], series[reward], series.iteration
    if is_validation(reward):
        drawn = np.flatnonzero(np.isfinite(h))
        means = smooth(h[drawn], width)
        tested = np.flatnonzero(np.isfinite(r))
        after = np.searchsorted(t[drawn], t[tested], side="right")
        kept, partner = tested[after < len(drawn)], after[after < len(drawn)]
        iteration, x, y = t[kept], means[partner], r[kept]
    else:
        kept = np.flatnonzero(np.isfinite(h) & np.isfinite(r))
        whole = slice(width - 1, None, width)
        iteration, x, y = t[kept][whole], smooth(h[kept], width)[whole], smooth(r[kept], width)[whole]
    if not len(x) and len(kept):
        raise UsageError(f"{series.source}: a mean of {width} takes as many iterations, got {len(kept)}.")
    if not len(x):
        when = "after" if is_validation(reward) else "in"
        raise UsageError(
            f"{series.source}: {entropy!r} was never measured {when} an iteration of {reward!r}."
        )
    return Points(series, iteration, x, y, entropy, reward, width)


def smooth(values: ArrayLike, width: int) -> Floats:
    """Trailing mean: ``[n]``, each the mean of the last ``width`` values up to it (fewer at the start)."""
    if width < 1:
        raise UsageError(f"a mean is over 1 or more values, got {width}.")
    x = np.asarray(values, float)
    first = min(width, len(x)) - 1
    if first <= 0:
        return x
    head = np.cumsum(x[:first]) / np.arange(1, first + 1)
    return np.concatenate([head, sliding_window_view(x, first + 1).mean(1)])
