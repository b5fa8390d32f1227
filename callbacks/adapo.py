"""ADAPO: an upper ratio bound that follows the entropy. https://arxiv.org/abs/2603.11682.

    s ← clip(s·factor if H < H0 else s/factor, minimum, maximum)      once an iteration, from s = 1
    hi ← 1 + s·(hi − 1)

More room upwards lets unlikely tokens gain, which raises the entropy. ``s`` is counted in the objective's
own room, so that it suits every clip. With ``target=null`` H0 is the entropy of the first rollout. The paper
gives no step or limits that we found: ``factor``, ``minimum`` and ``maximum`` are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ecrl.algorithm.strategy import RatioMixin, Strategy, bound_warnings, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class ADAPO(Strategy, RatioMixin, EntropyObserver):
    """Widen the ratio's upper bound while entropy is short. Neutral: ``factor=1``.

    Args:
        target: H0, nats, positive; None for the entropy of the first rollout.
        factor: by how much the room changes in an iteration, at least 1.
        minimum: smallest room, as a multiple of the objective's, in [0, 1].
        maximum: largest room, at least 1.
    """

    needs_entropy = True
    needs_updates = True

    def __init__(
        self,
        *,
        target: float | None = None,
        factor: float = 1.1,
        minimum: float = 0.5,
        maximum: float = 4.0,
    ) -> None:
        super().__init__()
        if target is not None:
            within(self, Range(above=0), target=target)
        within(self, Range(least=1), factor=factor, maximum=maximum)
        within(self, Range(least=0, most=1), minimum=minimum)
        self.target = target
        self.factor = factor
        self.minimum = minimum
        self.maximum = maximum
        self._scale = 1.0
        self._first: float | None = None

    @property
    def sets_bounds(self) -> bool:
        """Whether a bound moves."""
        return self.factor != 1

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no bound moves or binds."""
        if self.factor == 1:
            return ["factor=1 keeps the bound, so it does nothing."]
        return bound_warnings(config)

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Move the bound by the entropy of the fresh rollout."""
        self._first = entropy if self._first is None else self._first
        short = entropy < (self._first if self.target is None else self.target)
        wanted = self._scale * self.factor if short else self._scale / self.factor
        self._scale = min(max(wanted, self.minimum), self.maximum)

    def logged_coefficient(self) -> float:
        """Return the room, as a multiple of the objective's."""
        return self._scale

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Widen or narrow the upper bound ``[N]``."""
        return low, high if self._scale == 1 else 1 + self._scale * (high - 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the room and the first entropy."""
        return {"scale": self._scale, "first": self._first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._scale = state_dict["scale"]
        self._first = state_dict["first"]
