"""Clip_B: no gradient for wrong tokens whose punishment would cost most entropy.

    S_i = π_i·(logπ_i + H_i)
    w_i ← 0 where A_i < 0 and S_i − mean S < −μ·std S

https://arxiv.org/abs/2602.03392. To punish an unlikely token (S < 0) sharpens the distribution. Mean and
standard deviation run over all tokens of the optimizer minibatch. The public code (Trinity-RFT) also drops
such tokens from the denominator of the loss; here it stays, as for every weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ecrl.algorithm.covariance import entropy_discriminant
from ecrl.algorithm.strategy import Strategy, WeightMixin, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config

#: A spread that is rounding, nats.
ROUNDING = 1e-12


class ClipB(Strategy, WeightMixin):
    """Zero the weight of unlikely tokens with a negative advantage. Neutral: ``mu=null``.

    Args:
        mu: μ, how many standard deviations below the mean, not negative; None for no limit.
    """

    needs_current = True

    def __init__(self, *, mu: float | None = 2.5) -> None:
        super().__init__()
        if mu is not None:
            within(self, Range(least=0), mu=mu)
        self.mu = mu

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no token is dropped."""
        return ["mu=null drops no token, so it does nothing."] if self.mu is None else []

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Zero the chosen tokens' weights ``[N]``."""
        if self.mu is None:
            return weights
        signal = entropy_discriminant(tokens)
        spread = signal.std(correction=0)
        far = (signal - signal.mean() < -self.mu * spread) & (spread > ROUNDING)
        return weights.masked_fill(far & (tokens.advantages < 0), 0.0)
