"""Entrocraft: reject one sign of advantage where entropy leaves its band. https://arxiv.org/abs/2604.26326.

    H_t < low(t):   A_i ← 0 where A_i > 0      wrong answers only, which raises the entropy
    H_t > high(t):  A_i ← 0 where A_i < 0      right answers only, which lowers it
    else all train

``low(t)`` and ``high(t)`` go in a straight line from their first to their last value, which they reach in
iteration ``by``. Bounds are those of the authors' public code, which reaches the last ones at the end of the
run; outside the band it trains on the rewards themselves, here on the objective's advantages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ecrl.algorithm.pi_controller import trajectory
from ecrl.algorithm.strategy import AdvantageMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class Entrocraft(Strategy, AdvantageMixin, EntropyObserver):
    """Train on one sign of advantage out of the band. Neutral: a band that holds any entropy, 0 to 100.

    Args:
        low: lower bound of the band in the first iteration, nats, not negative.
        low_end: lower bound from iteration ``by`` on.
        high: upper bound in the first iteration, nats, above ``low``.
        high_end: upper bound from iteration ``by`` on, above ``low_end``.
        by: the iteration that reaches the last bounds, from 1.
    """

    needs_entropy = True

    def __init__(
        self,
        *,
        low: float = 0.6,
        low_end: float = 0.4,
        high: float = 0.7,
        high_end: float = 0.5,
        by: int = 250,
    ) -> None:
        super().__init__()
        within(self, Range(least=0), low=low, low_end=low_end)
        within(self, Range(above=0), high=high, high_end=high_end)
        within(self, Range(least=1), by=by)
        if not (low < high and low_end < high_end):
            raise ValueError(
                f"Entrocraft: each lower bound must be below its upper one; got low={low}, high={high}, "
                f"low_end={low_end}, high_end={high_end}."
            )
        self.low, self.low_end, self.high, self.high_end, self.by = low, low_end, high, high_end, by
        self._rejected = 0

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Choose by the entropy of the fresh rollout which sign is rejected."""
        part = min(module.iteration / self.by, 1.0)
        low = trajectory("linear", self.low, self.low_end, part)
        high = trajectory("linear", self.high, self.high_end, part)
        self._rejected = 1 if entropy < low else -1 if entropy > high else 0

    def logged_coefficient(self) -> float:
        """Return the sign of the advantages that are rejected, 0 for none."""
        return float(self._rejected)

    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Zero the rejected advantages ``[N]``."""
        return advantages.masked_fill(advantages * self._rejected > 0, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the rejected sign."""
        return {"rejected": self._rejected}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._rejected = state_dict["rejected"]
