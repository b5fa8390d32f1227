"""OPEFO: balance the tokens that raise the entropy and those that lower it. https://arxiv.org/abs/2605.11491.

    ΔH_i = −w_i·A_i·π_i·(logπ_i + H_i)      I = Σ of the positive ΔH,  D = −Σ of the negative ΔH
    λ = (D − I)/(D + I)
    w_i ← w_i·(1 + s·λ) where ΔH_i > 0,   w_i·(1 − s·λ) where ΔH_i < 0

With s = 1 both sums are 2·D·I/(D + I) after it. Sums run over the optimizer minibatch; tokens that the
surrogate clips, or that have no weight, do not flow. ΔH is the first-order change by a token's update, up to
the term that all tokens of a context share (https://arxiv.org/abs/2602.03392); we could not check the
paper's own simplification of it. The paper trains strictly on-policy: ``update.minibatches=1``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.covariance import entropy_discriminant
from ecrl.algorithm.strategy import Strategy, WeightMixin, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class OPEFO(Strategy, WeightMixin):
    """Weigh tokens so that entropy flows in as fast as out. Neutral: ``strength=0``.

    Args:
        strength: s, in [0, 1]; 1 is the paper's method.
    """

    needs_current = True

    def __init__(self, *, strength: float = 1.0) -> None:
        super().__init__()
        within(self, Range(least=0, most=1), strength=strength)
        self.strength = strength

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where all weights stay."""
        return ["strength=0, so it does nothing."] if self.strength == 0 else []

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Scale the weights ``[N]`` of either side."""
        change = -weights * tokens.advantages * entropy_discriminant(tokens)
        change = change.masked_fill(tokens.clipped, 0.0)
        rising, falling = change.clamp(min=0).sum(), -change.clamp(max=0).sum()
        imbalance = (falling - rising) / (falling + rising).clamp(min=torch.finfo(change.dtype).tiny)
        return weights * (1 + self.strength * imbalance * change.sign())
