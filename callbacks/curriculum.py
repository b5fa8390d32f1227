"""Keeps the level of ``env=curriculum`` in a run: see `ecrl.envs.composite.curriculum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning as L

from ecrl.envs.composite.curriculum import LevelSchedule
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.observer import RolloutObserver

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class CurriculumCallback(L.Callback, RolloutObserver):
    """Moves the level between iterations, where nothing is being drawn.

    Every process sees all trajectories of an iteration, so all keep the same level without a word.

    Args:
        level_schedule: the level to begin with, and the rule that moves it.
    """

    def __init__(self, level_schedule: LevelSchedule) -> None:
        self._level_schedule = level_schedule

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask for problems of the present level, once all that is being drawn is there."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        datamodule.queue.settle()
        datamodule.collector.options["train"] = {"level": self._level_schedule.level}

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Show the level_schedule the success of what was drawn at the present level."""
        # Rollouts drawn ahead may be of a level that is past.
        here = [t.reward >= 1 for t in trajectories if t.metrics["level"] == self._level_schedule.level]
        if here:
            self._level_schedule.observe(sum(here) / len(here))

    def state_dict(self) -> dict[str, Any]:
        """Return the level_schedule's state."""
        return self._level_schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._level_schedule.load_state_dict(state_dict)
