"""Clip-higher: more room upwards, so that unlikely tokens can gain. https://arxiv.org/abs/2503.14476.

r_i = π_i/π_old,i is clipped to [1 − low, 1 + high], with high > low
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.strategy import RatioMixin, Strategy, bound_warnings
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import UsageError

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class ClipHigher(Strategy, RatioMixin):
    """Widen the bounds of the importance ratio. Neutral: ``factor=1``.

    The default keeps the lower bound and lets the ratio rise 1.4 times as far above 1 as the objective does:
    0.28 for 0.2, as in the paper, and 5.6e-4 for GSPO's 4e-4.

    Args:
        factor: how many times as far as before the ratio may rise above 1, at least 0; unused if ``high`` is
            given.
        low: how far the ratio may fall below 1, in [0, 1]; None keeps the bound that is there.
        high: how far it may rise above 1, not negative; None multiplies the bound that is there.
    """

    needs_updates = True

    def __init__(self, *, factor: float = 1.4, low: float | None = None, high: float | None = None) -> None:
        super().__init__()
        if not 0 <= factor < math.inf:
            raise ValueError(f"ClipHigher: factor must be finite and not negative; got {factor}.")
        if low is not None and not 0 <= low <= 1:
            raise ValueError(f"ClipHigher: low must lie in [0, 1] (the bound is 1 − low); got {low}.")
        if high is not None and not 0 <= high < math.inf:
            raise ValueError(f"ClipHigher: high must be finite and not negative; got {high}.")
        self.factor = factor
        self.low = low
        self.high = high

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Refuse two that set the same bound; warn where no bound can bind."""
        for other in others:
            if isinstance(other, ClipHigher) and self._sets() & other._sets():
                raise UsageError(
                    f"{self.name} and {other.name} set the same ratio bound, so the first would do nothing. "
                    "Drop one of them."
                )
        if not self._sets():
            return ["factor=1 keeps the bounds, so it does nothing."]
        return bound_warnings(config)

    @property
    def sets_bounds(self) -> bool:
        """Whether either bound moves."""
        return bool(self._sets())

    def _sets(self) -> set[str]:
        low = {"low"} if self.low is not None else set()
        return low | ({"high"} if self.high is not None or self.factor != 1 else set())

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Set or widen the bounds ``[N]``."""
        if self.low is not None:
            low = torch.full_like(low, 1 - self.low)
        if self.high is not None:
            high = torch.full_like(high, 1 + self.high)
        elif self.factor != 1:
            high = 1 + self.factor * (high - 1)
        return low, high
