"""Entropy-ratio clip: no gradient where a token's entropy moved too far. ERC, https://arxiv.org/abs/2512.05591.

    w_i ← 0 unless low ≤ H_i/H_old,i ≤ high

``H_old`` is the full-vocabulary entropy at rollout time. It shows changes that the ratio of the sampled token
does not show, those of the other tokens. An entropy that moved by at most 1e-4 nats counts as unmoved: where
a policy is sure, so small a change is rounding. The bounds are those of the authors' public scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import Strategy, WeightMixin, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config

OLD_ENTROPY = "old_entropy"
#: Nats; a smaller change is rounding.
UNMOVED = 1e-4


class EntropyRatioClip(Strategy, WeightMixin):
    """Zero the weights of tokens whose entropy left a band around the old one. Neutral: ``low=0, high=null``.

    Args:
        low: smallest ratio of entropies, in [0, 1].
        high: largest, at least 1; None for no limit.
    """

    needs_current = True
    needs_updates = True
    needs_entropy = True

    def __init__(self, *, low: float = 0.95, high: float | None = 1.05) -> None:
        super().__init__()
        within(self, Range(least=0, most=1), low=low)
        within(self, Range(least=1), high=1.0 if high is None else high)
        self.low = low
        self.high = high

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no entropy can leave the band."""
        if self.low == 0 and self.high is None:
            return ["low=0 and high=null hold every token, so it does nothing."]
        return []

    def extra_columns(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        """Keep the entropies of the rollout: ``[N]``, nats."""
        return {OLD_ENTROPY: batch.old_entropy}

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Zero the weights ``[N]`` of tokens outside the band."""
        new, old = tokens.entropy.detach(), tokens.columns[OLD_ENTROPY]
        ratio = new / old.clamp(min=torch.finfo(old.dtype).tiny)
        beyond = (ratio < self.low) | (ratio > (math.inf if self.high is None else self.high))
        outside = beyond & ((new - old).abs() > UNMOVED)
        return weights.masked_fill(outside, 0.0)
