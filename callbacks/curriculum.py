"""Keeps the level of ``env=curriculum`` in a run: see `ecrl.envs.curriculum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning as L

from ecrl.batch import Trajectory
from ecrl.envs.curriculum import Ladder
from ecrl.mixins import RolloutObserver

if TYPE_CHECKING:
    from ecrl.module import PolicyModule


class FollowSuccess(L.Callback, RolloutObserver):
    """Moves the level between iterations, where nothing is being drawn.

    Every process sees all trajectories of an iteration, so all keep the same level without a word.

    Args:
        ladder: the level to begin with, and the rule that moves it.
    """

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask for problems of the present level, once all that is being drawn is there."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        datamodule.queue.settle()
        datamodule.collector.options["train"] = {"level": self._ladder.level}

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Show the ladder the success of what was drawn at the present level."""
        # Rollouts drawn ahead may be of a level that is past.
        here = [t.reward >= 1 for t in trajectories if t.metrics["level"] == self._ladder.level]
        if here:
            self._ladder.observe(sum(here) / len(here))

    def state_dict(self) -> dict[str, Any]:
        """Return the ladder's state."""
        return self._ladder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._ladder.load_state_dict(state_dict)
