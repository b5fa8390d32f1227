"""Entropy bonus: reward the policy's entropy itself. https://arxiv.org/abs/1602.01783.

    L − α·Σ_i u_i·H_i      H_i = −Σ_a π(a | context_i)·log π(a | context_i), u the aggregation

For reasoning models https://arxiv.org/abs/2505.22617 finds that α ≤ 1e-3 has no effect and that 1e-2
makes the entropy explode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.strategy import PenaltyMixin, Strategy
from ecrl.algorithm.token_batch import TokenBatch

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class EntropyBonus(Strategy, PenaltyMixin):
    """Subtract ``α·H`` from the loss. Neutral: ``coefficient=0``.

    Args:
        coefficient: α, not negative.
    """

    def __init__(self, *, coefficient: float = 1e-3) -> None:
        super().__init__()
        if not 0 <= coefficient < math.inf:
            raise ValueError(f"EntropyBonus: coefficient must be finite and not negative; got {coefficient}.")
        self.coefficient = coefficient

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where there is no bonus."""
        return ["coefficient=0, so it does nothing."] if self.coefficient == 0 else []

    def logged_coefficient(self) -> float:
        """Return α."""
        return self.coefficient

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Return ``−α`` for every token, ``[N]``: the loss is minimised, the entropy is not."""
        return torch.full_like(tokens.old_logprobs, -self.coefficient)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Return the full-vocabulary entropy ``[N]``, nats."""
        return tokens.entropy
