"""Clip-Cov: no gradient for a few tokens whose covariance is high. https://arxiv.org/abs/2505.22617.

    Cov_i = (logπ_i − mean_j logπ_j)·(A_i − mean_j A_j)
    candidates = {i : low < Cov_i < high, and not already without gradient by the surrogate's clip}
    w_i = 0 for max(⌊fraction·N⌋, 1) of the candidates drawn uniformly (all, if fewer), else w_i

Means and ``N`` run over all response tokens of the optimizer minibatch. The denominator of the loss
stays ``N``. The ratio bounds are the objective's; the paper's scripts use bounds of 1 on either side,
so that the ratio lies in [0, 2]: ``objective.bounds.low=1 objective.bounds.high=1``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.algorithm.strategy import Strategy, WeightMixin, share_warnings
from ecrl.algorithm.token_batch import TokenBatch

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class ClipCov(Strategy, WeightMixin):
    """Zero the surrogate of randomly drawn high-covariance tokens. Neutral: ``fraction=0``.

    Args:
        fraction: share of all tokens to zero, in [0, 1]: 2e-4 is 0.02 %.
        low: lower bound of a candidate's covariance, exclusive; nats × the advantage's unit.
        high: upper bound, exclusive; None for none. The most extreme tokens, above it, keep their gradient.
        quantiles: ``low`` and ``high`` are quantiles of the minibatch's covariances, in [0, 1], not values:
            as advantages and log-probs differ between models and tasks, so does what a value of 5 leaves out.
    """

    needs_current = True

    def __init__(
        self,
        *,
        fraction: float = 2e-4,
        low: float = 1.0,
        high: float | None = 5.0,
        quantiles: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= fraction <= 1:
            raise ValueError(f"ClipCov: fraction is a share of the tokens, in [0, 1]; got {fraction}.")
        if high is not None and not low < high:
            raise ValueError(f"ClipCov: low must be below high; got low={low}, high={high}.")
        if quantiles and not (0 <= low <= 1 and (high is None or high <= 1)):
            raise ValueError(f"ClipCov: quantiles lie in [0, 1]; got low={low}, high={high}.")
        self.fraction = fraction
        self.low = low
        self.high = high
        self.quantiles = quantiles

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no token is ever drawn."""
        if self.fraction == 0:
            return ["fraction=0 draws no token, so it does nothing."]
        return share_warnings(config, self.fraction)

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Zero the drawn tokens' weights ``[N]``."""
        covariance = token_covariance(tokens.logprobs, tokens.advantages)
        candidates = self._candidates(tokens, covariance) & ~tokens.clipped
        return weights.masked_fill(tokens.sample(candidates, self.fraction), 0.0)

    def _candidates(self, tokens: TokenBatch, covariance: Tensor) -> Tensor:
        """Tokens between the bounds, ``[N]`` bool."""
        high = math.inf if self.high is None else self.high
        if not self.quantiles:
            return (covariance > self.low) & (covariance < high)
        # By rank, which breaks ties by hash: a twin of the token on a bound would lie on either side of it.
        above = tokens.top_fraction(covariance, 1 - min(high, 1.0))
        return tokens.top_fraction(covariance, 1 - self.low) & ~above
