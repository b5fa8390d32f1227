"""Reference KL: stay near the policy that training started from. https://arxiv.org/abs/2402.03300.

    L + β·Σ_i u_i·D(x_i)      x_i = logπ_i − logπ_ref,i, u the aggregation

``D`` is differentiated as it stands, without importance ratio. What its value and its gradient are, in
expectation over tokens drawn from π (see http://joschu.net/blog/kl-approx.html):

    abs  |x|            value at least KL(π‖π_ref); gradient sign(x)·∇logπ, that of no KL
    k2   ½x²            value KL(π‖π_ref) to second order; gradient x·∇logπ, that of KL(π‖π_ref)
    k3   exp(−x)−1+x    value KL(π‖π_ref); gradient (1 − exp(−x))·∇logπ, that of KL(π_ref‖π)

The tokens are drawn from π_old, so all this holds to first order in the policy's change since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.losses import KL_ESTIMATORS
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS, RolloutBatch
from ecrl.algorithm.strategy import PenaltyMixin, Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import name_message

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule
    from ecrl.training.scoring import Scorer


class ReferenceKL(Strategy, PenaltyMixin):
    """Penalise distance from the initial policy. Neutral: ``coefficient=0``.

    Args:
        coefficient: β, not negative; 0 also skips the reference model's pass.
        estimator: ``abs``, ``k2`` or ``k3``.
    """

    needs_reference = True
    _scorer: Scorer

    def __init__(self, *, coefficient: float = 1e-3, estimator: str = "k3") -> None:
        super().__init__()
        if not 0 <= coefficient < math.inf:
            raise ValueError(f"ReferenceKL: coefficient must be finite and not negative; got {coefficient}.")
        if estimator not in KL_ESTIMATORS:
            raise ValueError(name_message("KL estimator", estimator, KL_ESTIMATORS))
        self.coefficient = coefficient
        self.estimator = estimator

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where there is no penalty."""
        return ["coefficient=0, so it does nothing."] if self.coefficient == 0 else []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep the scorer, which has a frozen copy of the initial policy."""
        self._scorer = cast("PolicyModule", pl_module).scorer

    def extra_columns(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        """Score the rollout with the reference policy, once: ``[N]``, nats."""
        return {REFERENCE_LOGPROBS: self._scorer.reference_logprobs(batch)} if self.coefficient > 0 else {}

    def logged_coefficient(self) -> float:
        """Return β."""
        return self.coefficient

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Return β for every token, ``[N]``."""
        return torch.full_like(tokens.old_logprobs, self.coefficient)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Estimate the divergence from the reference policy, ``[N]``, nats."""
        return KL_ESTIMATORS[self.estimator](tokens.logprobs - tokens.columns[REFERENCE_LOGPROBS])
