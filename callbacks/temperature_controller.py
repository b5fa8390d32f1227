"""Temperature controller: draw hotter while entropy is short. https://arxiv.org/abs/2510.08141.

    T_{t+1} = T_0·clip(1 + gain·(H0 − H_t), low, high)

``T_0`` is ``rollout.temperature``. A rollout is scored at the temperature that it was drawn with. The paper
draws the samples of a regulariser of its own at T, which switches between the two limits; here T is that of
all rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning as L

from ecrl.algorithm.strategy import Strategy, within
from ecrl.config.limits import Range
from ecrl.errors import UsageError
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class TemperatureController(Strategy, EntropyObserver):
    """Move the sampling temperature against the entropy. Neutral: ``gain=0``.

    Args:
        target: H0, nats, positive.
        gain: per nat, not negative.
        low: smallest factor of the temperature, in (0, 1].
        high: largest factor, at least 1.
    """

    needs_entropy = True

    def __init__(
        self, *, target: float = 0.5, gain: float = 1.0, low: float = 0.8, high: float = 1.2
    ) -> None:
        super().__init__()
        within(self, Range(above=0), target=target)
        within(self, Range(least=0), gain=gain)
        within(self, Range(above=0, most=1), low=low)
        within(self, Range(least=1), high=high)
        self.target = target
        self.gain = gain
        self.low = low
        self.high = high
        self._factor = 1.0

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Refuse a second hand on the temperature; warn where it stays."""
        rivals = [
            other.name
            for other in others
            if isinstance(other, TemperatureController) or getattr(other, "knob", "") == "rollout.temperature"
        ]
        if rivals:
            raise UsageError(f"{self.name} and {rivals[0]} both move rollout.temperature; drop one of them.")
        return ["gain=0, so it does nothing."] if self.gain == 0 else []

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Set the temperature of the next rollout."""
        self._factor = min(max(1 + self.gain * (self.target - entropy), self.low), self.high)
        self._apply(module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the temperature where a checkpoint left it."""
        self._apply(cast("PolicyModule", pl_module))

    def _apply(self, module: PolicyModule) -> None:
        module.temperature = module.config.rollout.temperature * self._factor

    def logged_coefficient(self) -> float:
        """Return the factor of the temperature."""
        return self._factor

    def state_dict(self) -> dict[str, Any]:
        """Return the factor."""
        return {"factor": self._factor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._factor = state_dict["factor"]
