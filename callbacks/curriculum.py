"""Keeps the level of ``env=curriculum`` in a run: see `ecrl.envs.composite.curriculum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning as L

from ecrl.envs.composite.curriculum import CurriculumEnv
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.observer import RolloutObserver

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class CurriculumCallback(L.Callback, RolloutObserver):
    """Moves the level between iterations, when no episode is being played.

    Every process sees all trajectories of an iteration, so all processes keep the same level.

    Args:
        env: the training environment; its schedule holds the first level, and the rule that moves it.
    """

    def __init__(self, env: CurriculumEnv) -> None:
        self._schedule = env.level_schedule

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask for problems of the present level, once all rollouts that are being drawn are complete."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        datamodule.queue.settle()
        datamodule.collector.options["train"] = {"level": self._schedule.level}

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Give the schedule the success rate of the trajectories at the present level."""
        # Rollouts drawn ahead may be of an earlier level.
        here = [t.reward >= 1 for t in trajectories if t.metrics.get("level") == self._schedule.level]
        if here:
            self._schedule.observe(sum(here) / len(here))

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state."""
        return self._schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._schedule.load_state_dict(state_dict)
