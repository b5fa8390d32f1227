"""A strategy whose penalty is the distance from the initial policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.losses import KL_ESTIMATORS
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS, RolloutBatch
from ecrl.algorithm.strategy import PenaltyMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.errors import name_message

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule
    from ecrl.training.scoring import Scorer


class ReferencePenalty(Strategy, PenaltyMixin):
    """Adds ``β·D(logπ − logπ_ref)`` to every token; a subclass may leave tokens out.

    Args:
        coefficient: β, not negative; 0 also skips the reference model's pass.
        estimator: ``abs``, ``k2`` or ``k3``.
    """

    needs_reference = True
    _scorer: Scorer

    def __init__(self, *, coefficient: float, estimator: str) -> None:
        super().__init__()
        within(self, Range(least=0), coefficient=coefficient)
        if estimator not in KL_ESTIMATORS:
            raise ValueError(name_message("KL estimator", estimator, KL_ESTIMATORS))
        self.coefficient = coefficient
        self.estimator = estimator

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
