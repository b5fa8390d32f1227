"""Sequence mask: no gradient for wrong responses that became unlikely. https://arxiv.org/abs/2512.02556.

    w_i ← 0 where A_i < 0 and mean_t(logμ_t − logπ_t) > δ, the mean over the token's response

``μ`` is what the engine drew the tokens with, so that staleness and the engine's numerics both count.
DeepSeek-V3.2, "off-policy sequence masking". The paper gives no δ; 0.5 is what TRL advises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class SequenceMask(Strategy, WeightMixin):
    """Zero the weights of wrong responses that became too unlikely. Neutral: ``limit=null``.

    Args:
        limit: δ, nats per token, not negative; None masks no response.
    """

    needs_current = True

    def __init__(self, *, limit: float | None = 0.5) -> None:
        super().__init__()
        if limit is not None:
            within(self, Range(least=0), limit=limit)
        self.limit = limit

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no response is masked."""
        return ["limit=null masks no response, so it does nothing."] if self.limit is None else []

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Zero the masked responses' weights ``[N]``."""
        if self.limit is None:
            return weights
        distance = tokens.per_sequence_mean(tokens.engine_logprobs - tokens.logprobs)[tokens.sequence_ids]
        return weights.masked_fill((distance > self.limit) & (tokens.advantages < 0), 0.0)
