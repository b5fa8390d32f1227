"""Archer: loose bounds where the policy hesitates, a reference KL where it knows. https://arxiv.org/abs/2507.15778.

    high-entropy tokens, above the 1 − fraction quantile of their own response:  wider bounds, no KL
        lo ← max(1 − wide·(1 − lo), 0),   hi ← 1 + wide·(hi − 1)
    the others:  bounds as they are,   L + β·Σ_i u_i·D(logπ_i − logπ_ref,i)

Defaults are the paper's: with an objective that clips at 0.2, hesitating tokens are clipped at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.strategy import RatioMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.reference import ReferencePenalty

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class Archer(ReferencePenalty, RatioMixin):
    """Constrain sure tokens, free the others. Neutral: ``wide=1, coefficient=0``.

    Args:
        fraction: share of a response's tokens that count as hesitating, in [0, 1].
        wide: how many times as wide as the objective's their bounds are, at least 0.
        coefficient: β, not negative.
        estimator: of the KL: ``abs``, ``k2`` or ``k3``; see ``reference_kl``.
    """

    needs_current = True

    def __init__(
        self,
        *,
        fraction: float = 0.2,
        wide: float = 2.5,
        coefficient: float = 1e-3,
        estimator: str = "k3",
    ) -> None:
        super().__init__(coefficient=coefficient, estimator=estimator)
        within(self, Range(least=0, most=1), fraction=fraction)
        within(self, Range(least=0), wide=wide)
        self.fraction = fraction
        self.wide = wide

    @property
    def sets_bounds(self) -> bool:
        """Whether a bound moves."""
        return self.wide != 1

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where bounds stay and there is no penalty."""
        inert = self.wide == 1 and self.coefficient == 0
        return ["wide=1 and coefficient=0, so it does nothing."] if inert else []

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Widen the bounds ``[N]`` of hesitating tokens."""
        if self.wide == 1:
            return low, high
        hesitating = tokens.top_of_sequences(tokens.entropy, self.fraction)
        wide_low, wide_high = (1 - self.wide * (1 - low)).clamp(min=0), 1 + self.wide * (high - 1)
        return torch.where(hesitating, wide_low, low), torch.where(hesitating, wide_high, high)

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Give β to the sure tokens, 0 to the others: ``[N]``."""
        hesitating = tokens.top_of_sequences(tokens.entropy, self.fraction)
        return super().penalty_coefficients(tokens).masked_fill(hesitating, 0.0)
