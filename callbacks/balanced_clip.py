"""Balanced clip: widen the bounds until right responses carry their share. BAPO, https://arxiv.org/abs/2510.18927.

    share = P / (P + N)      P = Σ_{A>0} A·min(r, high)      N = Σ_{A<0} |A|·max(r, low)
    high ← high + step up to its end, then low ← low + step up to its end, until share ≥ ρ₀

Sums run over all response tokens of the optimizer minibatch; the bounds start anew in each. A higher upper
bound lets unlikely tokens of right responses gain. A higher lower bound spares unlikely tokens of wrong ones:
their terms have no gradient then, though they still count in N. The step is that of the authors' public code,
which moves the lower bound first and takes ρ₀ = 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecrl.algorithm.strategy import ReplacedBounds, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range


class BalancedClip(ReplacedBounds):
    """Set the bounds of the ratio by the share of right responses in the loss.

    Neutral: ``share=0, low=null, high=null``.

    Args:
        share: ρ₀, in [0, 1].
        low: where the lower bound begins, in [0, 1]; None keeps the bound that is there.
        low_end: where it ends, in [low, 1].
        high: where the upper bound begins, at least 1; None keeps the bound that is there.
        high_end: where it ends, at least ``high``.
        step: of either bound, above 0.
    """

    needs_current = True

    def __init__(
        self,
        *,
        share: float = 0.4,
        low: float | None = 0.6,
        low_end: float = 0.9,
        high: float | None = 1.2,
        high_end: float = 3.0,
        step: float = 0.05,
    ) -> None:
        super().__init__()
        within(self, Range(least=0, most=1), share=share, low=low or 0.0)
        within(self, Range(least=low, most=1), low_end=low_end)
        within(self, Range(least=1), high=high or 1.0)
        within(self, Range(least=high), high_end=high_end)
        within(self, Range(above=0), step=step)
        self.share = share
        self.low = low
        self.low_end = low_end
        self.high = high
        self.high_end = high_end
        self.step = step

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Set the bounds ``[N]`` where the share is reached, or at their ends."""
        lows = [low.new_tensor(x).expand_as(low) for x in self._levels(self.low, self.low_end)] or [low]
        highs = [high.new_tensor(x).expand_as(high) for x in self._levels(self.high, self.high_end)] or [high]
        way = [(lows[0], level) for level in highs] + [(level, highs[-1]) for level in lows[1:]]
        return next((bounds for bounds in way if self._reached(tokens, *bounds)), way[-1])

    def _levels(self, start: float | None, end: float) -> list[float]:
        """The values that a bound takes, in order; none where it is kept."""
        if start is None:
            return []
        steps = math.ceil((end - start) / self.step - 1e-9)
        return [min(start + i * self.step, end) for i in range(steps + 1)]

    def _reached(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> bool:
        advantages, ratio = tokens.advantages.double(), tokens.ratio.double()
        right = (advantages.clamp(min=0) * torch.minimum(ratio, high)).sum()
        wrong = (-advantages.clamp(max=0) * torch.maximum(ratio, low)).sum()
        return bool(right >= self.share * (right + wrong))
