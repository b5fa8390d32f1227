"""RL-ZVP: learn from groups without contrast, by entropy. https://arxiv.org/abs/2509.21880.

    in a group whose rewards are all the same:
    all right:  A_i ← α·H_i
    all wrong:  A_i ← −α·(max_j H_j − H_i)      j over the same response

A right answer is credited where the policy hesitated; a wrong one is blamed where it did not. Right is a
reward of at least 1, wrong one of at most 0; what lies between is left alone. It needs those groups:
``objective.filters.drop_zero_variance=false``. The paper calls α sensitive; its default was not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.advantages import zero_variance
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import AdvantageMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config

#: Column ``[N]``: 1 in a group that is all right, −1 in one that is all wrong, else 0.
UNANIMOUS = "unanimous"


class RLZVP(Strategy, AdvantageMixin):
    """Give groups without contrast an advantage. Neutral: ``alpha=0``.

    Args:
        alpha: α, the advantage's unit per nat, not negative.
    """

    needs_current = True

    def __init__(self, *, alpha: float = 0.1) -> None:
        super().__init__()
        within(self, Range(least=0), alpha=alpha)
        self.alpha = alpha

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where nothing is added, or where the groups that it acts on are left out."""
        if self.alpha == 0:
            return ["alpha=0, so it does nothing."]
        filters = config.objective.get("filters") or {}
        if filters.get("drop_zero_variance", True):
            return [
                "the objective leaves out the groups that it acts on; set "
                "objective.filters.drop_zero_variance=false."
            ]
        return []

    def extra_columns(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        """Mark the groups that are all right or all wrong: ``[N]``."""
        verdict = (batch.rewards >= 1).float() - (batch.rewards <= 0).float()
        same = zero_variance(batch.rewards, batch.group_ids)
        return {UNANIMOUS: torch.where(same, verdict, 0.0)[batch.sequence_ids]}

    def logged_coefficient(self) -> float:
        """Return α."""
        return self.alpha

    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Set the advantages ``[N]`` of the groups without contrast."""
        entropy, verdict = tokens.entropy, tokens.columns[UNANIMOUS]
        if self.alpha == 0:
            return advantages
        peak = entropy.new_zeros(tokens.num_sequences)
        peak = peak.scatter_reduce(0, tokens.sequence_ids, entropy, "amax")[tokens.sequence_ids]
        shaped = self.alpha * torch.where(verdict > 0, entropy, entropy - peak)
        return torch.where(verdict != 0, shaped, advantages)
