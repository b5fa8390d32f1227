"""Positive-advantage reweighting: the weight of right answers follows the entropy.

    λ ← clip(λ − Δ if H < H* else λ + Δ, 0, 1)      once an iteration, from ``initial``
    w_i ← w_i·λ where A_i > 0

https://arxiv.org/abs/2511.05993, the entropy-guided variant: tokens with a positive advantage are what lowers
the entropy. Δ is the paper's. Its H* was not found (the others' runs in its tables hold 0.37 nats), nor its
first λ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class PositiveReweighting(Strategy, WeightMixin, EntropyObserver):
    """Weigh positive advantages less while entropy is short. Neutral: ``delta=0, initial=1``.

    Args:
        target: H*, nats, positive.
        delta: Δ, the change of λ per iteration, in [0, 1].
        initial: λ before the first iteration, in [0, 1].
    """

    needs_entropy = True

    def __init__(self, *, target: float = 0.2, delta: float = 0.05, initial: float = 1.0) -> None:
        super().__init__()
        within(self, Range(above=0), target=target)
        within(self, Range(least=0, most=1), delta=delta, initial=initial)
        self.target = target
        self.delta = delta
        self._weight = initial

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where λ stays 1."""
        return (
            ["λ stays 1, so it does nothing. Raise delta."] if self.delta == 0 and self._weight == 1 else []
        )

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Move λ by the entropy of the fresh rollout."""
        step = -self.delta if entropy < self.target else self.delta
        self._weight = min(max(self._weight + step, 0.0), 1.0)

    def logged_coefficient(self) -> float:
        """Return λ."""
        return self._weight

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Multiply the weights ``[N]`` of positive advantages."""
        return torch.where(tokens.advantages > 0, weights * self._weight, weights)

    def state_dict(self) -> dict[str, Any]:
        """Return λ."""
        return {"weight": self._weight}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._weight = state_dict["weight"]
