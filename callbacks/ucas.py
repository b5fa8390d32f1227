"""UCAS: advantages by how sure a response is of itself. https://arxiv.org/abs/2510.10649.

    c = Σ_t [logsumexp(x_t) − mean_v x_t,v]      z = (c − mean_group c)/(std_group c + ε)
    A > 0:  A_t ← max(A_t·exp(−positive·z) − logit·l_t, 0)
    A ≤ 0:  A_t ← A_t·exp(negative·z) − logit·l_t

``x`` are the logits of the policy that the rollout began with, so that the bracket is KL(U‖π) + log V with U
the uniform distribution; l_t is the logit of the token itself, scaled to [0, 1] over the rollout. A right
answer counts more if it was unsure, a wrong one if it was sure, and sure tokens count less in either.
Defaults are the constants in the authors' public code, whose sum over t this is. It costs a pass over the
rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.advantages import EPS, group_mean, group_std
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import AdvantageMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule
    from ecrl.training.scoring import Scorer

#: Columns ``[N]``: the response's z, and the token's scaled logit.
CERTAINTY, LOGIT = "certainty", "scaled_logit"


class UCAS(Strategy, AdvantageMixin):
    """Shape advantages by the policy's certainty. Neutral: ``positive=0, negative=0, logit=0``.

    Args:
        positive: how much a sure right answer loses, not negative.
        negative: how much a sure wrong answer's blame grows, not negative.
        logit: what the largest logit of the rollout costs, in the advantage's unit, not negative.
    """

    needs_facts = True
    _scorer: Scorer

    def __init__(self, *, positive: float = 0.25, negative: float = 0.35, logit: float = 0.05) -> None:
        super().__init__()
        within(self, Range(least=0), positive=positive, negative=negative, logit=logit)
        self.positive = positive
        self.negative = negative
        self.logit = logit

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where all advantages stay."""
        return ["all three knobs are 0, so it does nothing."] if self._inert else []

    @property
    def _inert(self) -> bool:
        return self.positive == self.negative == self.logit == 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep the scorer."""
        self._scorer = cast("PolicyModule", pl_module).scorer

    def extra_columns(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        """Measure the rollout's distributions, once: ``[N]`` each."""
        if self._inert or not len(batch):
            return {}
        certainty, logit, _ = self._scorer.vocabulary_facts(batch)
        total = certainty.new_zeros(len(batch)).index_add(0, batch.sequence_ids, certainty)
        z = (total - group_mean(total, batch.group_ids)) / (group_std(total, batch.group_ids) + EPS)
        scaled = (logit - logit.min()) / (logit.max() - logit.min() + EPS)
        return {CERTAINTY: z.to(certainty.dtype)[batch.sequence_ids], LOGIT: scaled}

    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Shape the advantages ``[N]``."""
        if self._inert:
            return advantages
        z, right = tokens.columns[CERTAINTY], advantages > 0
        factor = torch.where(right, (-self.positive * z).exp(), (self.negative * z).exp())
        shaped = advantages * factor - self.logit * tokens.columns[LOGIT]
        return torch.where(right, shaped.clamp(min=0), shaped)
