"""EPO: an entropy bonus that keeps each token near the mean of the past. https://arxiv.org/abs/2509.22576.

    L − α·Σ_i u_i·[H_i − β·|H_i − clip(H_i, low·M, high·M)|]      u the aggregation

``M`` is the mean over all iterations so far of the rollouts' entropy. Defaults are those of the authors'
public code. That code adds a constant for each token outside the band, which has no gradient; here the
penalty is the distance to the band, so that it acts. Nor does it keep the code's optional weight by epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecrl.algorithm.strategy import PenaltyMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class EPO(Strategy, PenaltyMixin, EntropyObserver):
    """Reward entropy within a band around its history. Neutral: ``coefficient=0``.

    Args:
        coefficient: α, not negative.
        smoothing: β, not negative.
        low: lower edge of the band as a share of M, not negative.
        high: upper edge, above ``low``.
    """

    needs_entropy = True

    def __init__(
        self, *, coefficient: float = 1e-3, smoothing: float = 0.1, low: float = 0.5, high: float = 1.5
    ) -> None:
        super().__init__()
        within(self, Range(least=0), coefficient=coefficient, smoothing=smoothing, low=low)
        if not low < high:
            raise ValueError(f"EPO: low must be below high; got {low} and {high}.")
        within(self, Range(above=0), high=high)
        self.coefficient = coefficient
        self.smoothing = smoothing
        self.low = low
        self.high = high
        self._total = 0.0
        self._count = 0

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where there is no bonus."""
        return ["coefficient=0, so it does nothing."] if self.coefficient == 0 else []

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Take the entropy of the fresh rollout into the mean."""
        self._total += entropy
        self._count += 1

    def logged_coefficient(self) -> float:
        """Return α."""
        return self.coefficient

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Return ``−α`` for every token, ``[N]``."""
        return torch.full_like(tokens.old_logprobs, -self.coefficient)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Return the entropy ``[N]`` less what it is outside the band, nats."""
        mean = self._total / max(self._count, 1)
        inside = tokens.entropy.detach().clamp(self.low * mean, self.high * mean)
        return tokens.entropy - self.smoothing * (tokens.entropy - inside).abs()

    def state_dict(self) -> dict[str, Any]:
        """Return sum and number of the entropies so far."""
        return {"total": self._total, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._total = state_dict["total"]
        self._count = state_dict["count"]
