"""REPO-R: more credit for unlikely tokens that were right, less blame for those that were wrong.

    A_i ← A_i − ζ·|A_i|·logπ_i, but never past 0:      A > 0: A·(1 − ζ·logπ),  A < 0: A·(1 + ζ·logπ)

    once an iteration:  H < H0: one step up,  else one step down,  on the ladder
    −maximum … −2·minimum, −minimum, minimum, 2·minimum … maximum, where a step doubles or halves ζ

https://arxiv.org/abs/2603.11682, appendix D.2. A negative ζ spends entropy. The factor of 2 and the bounds
are the paper's; with ``target=null`` H0 is the entropy of the first rollout, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecrl.algorithm.strategy import AdvantageMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class RepoR(Strategy, AdvantageMixin, EntropyObserver):
    """Rescale advantages by log-probability. Neutral: ``initial=0, minimum=0, maximum=0``.

    Args:
        target: H0, nats, positive; None for the entropy of the first rollout.
        initial: ζ before the first iteration, per nat. The paper's was not found; this is that of a public
            reimplementation.
        minimum: smallest |ζ|, not negative.
        maximum: largest |ζ|, at least ``minimum``.
    """

    needs_current = True
    needs_entropy = True

    def __init__(
        self,
        *,
        target: float | None = None,
        initial: float = 1e-3,
        minimum: float = 1e-4,
        maximum: float = 0.05,
    ) -> None:
        super().__init__()
        if target is not None:
            within(self, Range(above=0), target=target)
        within(self, Range(least=0), minimum=minimum, maximum=maximum)
        if not minimum <= abs(initial) <= maximum:
            raise ValueError(
                f"RepoR: minimum ≤ |initial| ≤ maximum must hold; got {minimum}, {initial}, {maximum}."
            )
        self.target = target
        self.minimum = minimum
        self.maximum = maximum
        self._zeta = initial
        self._first: float | None = None

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where ζ stays 0."""
        return ["maximum=0 keeps ζ at 0, so it does nothing."] if self.maximum == 0 else []

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Move ζ one step by the entropy of the fresh rollout."""
        self._first = entropy if self._first is None else self._first
        up = entropy < (self._first if self.target is None else self.target)
        zeta = self._zeta if up else -self._zeta  # as if one step up were wanted
        zeta = min(2 * zeta, self.maximum) if zeta > 0 else zeta / 2
        if -self.minimum < zeta <= 0:
            zeta = self.minimum
        self._zeta = zeta if up else -zeta

    def logged_coefficient(self) -> float:
        """Return ζ."""
        return self._zeta

    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Rescale the advantages ``[N]``."""
        rescaled = advantages - self._zeta * advantages.abs() * tokens.logprobs
        return torch.where(rescaled * advantages > 0, rescaled, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return ζ and the first entropy."""
        return {"zeta": self._zeta, "first": self._first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._zeta = state_dict["zeta"]
        self._first = state_dict["first"]
