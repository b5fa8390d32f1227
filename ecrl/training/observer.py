"""Callbacks that observe a run: every rollout, every plan, all that is drawn and trained on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecrl.algorithm.loss_plan import LossPlan
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.rollout.rollout_queue import Rollout
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


class DataObserver(ABC):
    """A callback that observes all that a run draws, and the tokens that it trains on."""

    @abstractmethod
    def on_batch(self, module: PolicyModule, rollout: Rollout, batch: RolloutBatch) -> None:
        """See an iteration's rollout, and the batch of those of its trajectories that train.

        Advantages and columns are final, and no update was made yet.
        """

    @abstractmethod
    def on_tokens(self, module: PolicyModule, tokens: TokenBatch) -> None:
        """See an optimizer minibatch's tokens with final advantages, as the update scored them."""

    @abstractmethod
    def on_answers(self, module: PolicyModule, of: str, answers: Sequence[Trajectory], greedy: bool) -> None:
        """See answers to problems of a validation set."""
