"""Adaptive entropy coefficient, as in Skywork-OR1. https://arxiv.org/abs/2505.22312.

    c ← clamp(c + Δ if H < H* else c − Δ, 0, max)     once an iteration
    L − α·Σ_i u_i·H_i      α = c where H ≤ H*, else 0; u the aggregation

``H`` is the entropy of the iteration's rollout, before its first update. The iteration that measures
it already applies the new coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecrl.algorithm.strategy import PenaltyMixin, Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class AdaptiveEntropy(Strategy, PenaltyMixin, EntropyObserver):
    """An entropy bonus that grows while the entropy is under its target. Neutral: ``delta=0, initial=0``.

    Args:
        target: H*, nats, positive.
        delta: Δ, the change of the coefficient per iteration, not negative.
        initial: the coefficient before the first iteration, not negative.
        maximum: the coefficient's upper limit; None for none.
    """

    needs_entropy = True

    def __init__(
        self,
        *,
        target: float = 0.2,
        delta: float = 0.005,
        initial: float = 0.0,
        maximum: float | None = None,
    ) -> None:
        super().__init__()
        self.maximum = math.inf if maximum is None else maximum
        if not 0 < target < math.inf:
            raise ValueError(f"AdaptiveEntropy: target must be a positive entropy in nats; got {target}.")
        if not 0 <= delta < math.inf:
            raise ValueError(f"AdaptiveEntropy: delta must be finite and not negative; got {delta}.")
        if not 0 <= initial < math.inf or not initial <= self.maximum:
            raise ValueError(f"AdaptiveEntropy: initial must lie in [0, maximum={maximum}]; got {initial}.")
        self.target = target
        self.delta = delta
        self._level = initial
        self._applied = 0.0

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where the coefficient can never leave 0."""
        if self.maximum == 0 or (self.delta == 0 and self._level == 0):
            return ["the coefficient can never leave 0, so it does nothing. Raise delta."]
        return []

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Move the coefficient by the entropy of the fresh rollout."""
        step = self.delta if entropy < self.target else -self.delta
        self._level = min(max(self._level + step, 0.0), self.maximum)
        self._applied = self._level if entropy <= self.target else 0.0

    def logged_coefficient(self) -> float:
        """Return the α that this iteration applies."""
        return self._applied

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Return ``−α`` for every token, ``[N]``."""
        return torch.full_like(tokens.old_logprobs, -self._applied)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Return the full-vocabulary entropy ``[N]``, nats."""
        return tokens.entropy

    def state_dict(self) -> dict[str, Any]:
        """Return the coefficient, and what of it is applied."""
        return {"level": self._level, "applied": self._applied}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._level = state_dict["level"]
        self._applied = state_dict["applied"]
