"""Entropy-shaped advantage: more credit where the policy hesitated. https://arxiv.org/abs/2506.14758.

    A_i ← A_i + min(α·sg(H_i), |A_i|/κ)

The bonus has no gradient of its own, and with κ > 1 it never turns an advantage's sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.strategy import AdvantageMixin, Strategy
from ecrl.algorithm.token_batch import TokenBatch

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class EntropyAdvantage(Strategy, AdvantageMixin):
    """Add a bounded share of the entropy to the advantages. Neutral: ``alpha=0``.

    Args:
        alpha: α, the advantage's unit per nat, not negative.
        kappa: κ, above 1; the bonus is at most ``|A|/κ``.
    """

    needs_current = True

    def __init__(self, *, alpha: float = 0.4, kappa: float = 2.0) -> None:
        super().__init__()
        if not 0 <= alpha < math.inf:
            raise ValueError(f"EntropyAdvantage: alpha must be finite and not negative; got {alpha}.")
        if not kappa > 1:
            raise ValueError(f"EntropyAdvantage: kappa must exceed 1, else signs turn; got {kappa}.")
        self.alpha = alpha
        self.kappa = kappa

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where nothing is added."""
        return ["alpha=0, so it does nothing."] if self.alpha == 0 else []

    def logged_coefficient(self) -> float:
        """Return α."""
        return self.alpha

    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Add the bounded entropy bonus to the advantages ``[N]``."""
        return advantages + torch.minimum(self.alpha * tokens.entropy.detach(), advantages.abs() / self.kappa)
