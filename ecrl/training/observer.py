"""Callbacks that observe a run: every rollout, every plan."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecrl.algorithm.loss_plan import LossPlan
from ecrl.rollout.trajectory import Trajectory

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class RolloutObserver(ABC):
    """A callback that observes every rollout."""

    @abstractmethod
    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """See all trajectories of an iteration, before any filter."""


class EntropyObserver(RolloutObserver):
    """A callback that follows the entropy of each rollout, in nats; where there is none, it hears nothing."""

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Pass on the entropy of the policy that drew the rollout, unless no group trains."""
        if math.isfinite(module.policy_entropy):
            self.on_entropy(module, module.policy_entropy)

    @abstractmethod
    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """See the entropy of a fresh rollout, before its first update."""


class PlanObserver(ABC):
    """A callback that observes every plan."""

    @abstractmethod
    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        """See an optimizer minibatch's plan; ``fresh`` means that no update lies since the rollout.

        Then its log-probs and entropies are those of the policy that the rollout began with.
        """
