"""STEER: less weight where a token would move the entropy much. https://arxiv.org/abs/2510.10150.

    Ω_i = (A_i/π_old,i)·π_i·(1 − π_i)·(logπ_i + H_i)
    w_i ← w_i·exp(−k·|Ω_i|)      k = −log(minimum) / max(max_j |Ω_j|, 0.02)

Ω estimates by how much a token's update changes the entropy. The maximum runs over the optimizer minibatch,
so the token that moves the entropy most weighs ``minimum``. The floor of 0.02 is the public code's: where no
token moves the entropy, all keep their weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch

if TYPE_CHECKING:
    from ecrl.config.schema import Config

#: Smallest number that |Ω| is divided by, nats × the advantage's unit.
FLOOR = 0.02


class STEER(Strategy, WeightMixin):
    """Weigh tokens by how little they change the entropy. Neutral: ``minimum=1``.

    Args:
        minimum: smallest weight, in (0, 1]. The paper's 0.7; the authors' public script uses 0.8.
    """

    needs_current = True

    def __init__(self, *, minimum: float = 0.7) -> None:
        super().__init__()
        if not 0 < minimum <= 1:
            raise ValueError(f"STEER: minimum is a weight, in (0, 1]; got {minimum}.")
        self.minimum = minimum

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where all weights stay."""
        return ["minimum=1 keeps every weight, so it does nothing."] if self.minimum == 1 else []

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Multiply the weights ``[N]``."""
        room = -tokens.logprobs.expm1() * (tokens.logprobs + tokens.entropy)
        change = (tokens.advantages * tokens.ratio * room).abs()
        steepness = -math.log(self.minimum) / change.max().clamp(min=FLOOR)
        return weights * (-steepness * change).exp()
