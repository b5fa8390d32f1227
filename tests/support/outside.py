"""A strategy that lives outside the framework, named by `_target_` in the user's own YAML."""

from __future__ import annotations

from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch


class DropLate(Strategy, WeightMixin):
    """Gives no gradient to tokens from a position on."""

    def __init__(self, *, position: int = 4) -> None:
        super().__init__()
        self.position = position

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        return weights * (tokens.positions < self.position)
