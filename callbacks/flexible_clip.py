"""Flexible entropy control: ratio bounds that depend on the token's probability, by a schedule.

    ε(π) = ε·(offset + slope·π)      ε: the objective's own room, on either side
    k ≤ by/2:  hi from ε(π), fading to the objective's           entropy rises
    k > by/2:  lo from ε(π), fading to the objective's           entropy falls

https://arxiv.org/abs/2602.09782, the schedule "increase then decrease", which is the paper's best. With a
mixture ``m·ε(π) + (1 − m)·ε``, where m goes from 1 to 0 in each half, ``r ≤ 1 + ε`` and ``r ≥ 1 − ε`` become,
with π = r·π_old, bounds that planning knows:

    hi = (1 + ε·b)/(1 − ε·a·π_old)    lo = (1 − ε·b)/(1 + ε·a·π_old)    b = 1 + m·(offset − 1),  a = m·slope

The paper's α and β were not found; the defaults, ours, give an unlikely token half as much room again and a
sure one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ecrl.algorithm.strategy import RatioMixin, Strategy, bound_warnings, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.observer import RolloutObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class FlexibleClip(Strategy, RatioMixin, RolloutObserver):
    """Give unlikely tokens more room, first upwards, then downwards. Neutral: ``offset=1, slope=0``.

    Args:
        offset: room of a token of probability 0, as a multiple of the objective's, not negative.
        slope: what a probability of 1 adds to that; ``offset + slope`` must not be negative.
        by: the iteration in which the second half ends, from 1; the paper's is the last of the run.
    """

    needs_updates = True

    def __init__(self, *, offset: float = 1.5, slope: float = -1.0, by: int = 250) -> None:
        super().__init__()
        within(self, Range(least=0), offset=offset)
        within(self, Range(least=-offset), slope=slope)
        within(self, Range(least=1), by=by)
        self.offset = offset
        self.slope = slope
        self.by = by
        self._part = 0.0

    @property
    def sets_bounds(self) -> bool:
        """Whether a bound moves."""
        return self.offset != 1 or self.slope != 0

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no bound moves or binds."""
        if self.offset == 1 and self.slope == 0:
            return ["offset=1 and slope=0 keep the bounds, so it does nothing."]
        return bound_warnings(config)

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Move on in the schedule."""
        self._part = min(module.iteration / self.by, 1.0)

    def logged_coefficient(self) -> float:
        """Return the mixture m, negative in the second half."""
        return 1 - 2 * self._part if self._part <= 0.5 else 2 * self._part - 2

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Move the upper bounds ``[N]`` in the first half, the lower ones in the second."""
        mixture = abs(self.logged_coefficient())
        more, slope = mixture * (self.offset - 1), mixture * self.slope
        if more == 0 and slope == 0:
            return low, high
        probability = tokens.old_logprobs.exp()
        if self._part <= 0.5:
            room = high - 1
            return low, (high + room * more) / (1 - room * slope * probability).clamp(min=1e-6)
        room = 1 - low
        moved = (low - room * more) / (1 + room * slope * probability).clamp(min=1e-6)
        return moved.clamp(min=0), high

    def state_dict(self) -> dict[str, Any]:
        """Return the part of the schedule that is done."""
        return {"part": self._part}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._part = state_dict["part"]
