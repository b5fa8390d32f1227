"""Dynamic clip: the less likely a token was, the wider its bounds. DCPO, https://arxiv.org/abs/2509.02333.

    low_i  = ½ + ½·√max(1 − 4·ε_low/q_i, 0)                 q_i = π_old of the sampled token
    high_i = min(½ + ½·√(1 + 4·ε_high/q_i), cap)

So |r − 1|·π ≤ ε, where a constant bound is |r − 1| ≤ ε. The paper also smooths advantages over iterations and
takes the mean over tokens of each response; these are not part of this strategy.
"""

from __future__ import annotations

from torch import Tensor

from ecrl.algorithm.strategy import ReplacedBounds, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range


class DynamicClip(ReplacedBounds):
    """Set the bounds of the importance ratio by each token's probability. Neutral: ``low=null, high=null``.

    Args:
        low: ε_low, not negative; None keeps the bound that is there.
        high: ε_high, not negative; None keeps the bound that is there.
        cap: largest upper bound, at least 1.
    """

    def __init__(self, *, low: float | None = 0.16, high: float | None = 0.2, cap: float = 10.0) -> None:
        super().__init__()
        given = {name: value for name, value in (("low", low), ("high", high)) if value is not None}
        within(self, Range(least=0), **given)
        within(self, Range(least=1), cap=cap)
        self.low = low
        self.high = high
        self.cap = cap

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Set the bounds ``[N]`` by the old probabilities."""
        old = tokens.old_logprobs.exp()
        if self.low is not None:
            low = 0.5 + 0.5 * (1 - 4 * self.low / old).clamp(min=0).sqrt()
        if self.high is not None:
            high = (0.5 + 0.5 * (1 + 4 * self.high / old).sqrt()).clamp(max=self.cap)
        return low, high
