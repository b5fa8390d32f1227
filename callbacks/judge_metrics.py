"""Records what the judge of ``env=judge`` did: see `ecrl.envs.judge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import lightning as L
import torch

from ecrl.envs.judge.env import JudgeEnv
from ecrl.envs.judge.judge import stats
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.observer import RolloutObserver

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class JudgeMetrics(L.Callback, RolloutObserver):
    """Records ``judge/…`` over all processes, since the last iteration, validation included.

    Args:
        env: the training environment.
    """

    def __init__(self, env: JudgeEnv) -> None:
        self._counted = torch.tensor(astuple(stats), dtype=torch.float64)

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Record what was asked since the last call."""
        now = torch.tensor(astuple(stats), dtype=torch.float64)
        new, self._counted = module.process_group.sum(now - self._counted), now
        verdicts, cached, requests, seconds, retries, failures = new.tolist()
        record = module.recorder.record
        record("judge/requests", requests)
        record("judge/retries", retries)
        record("judge/failures", failures)
        if verdicts:
            record("judge/cached", cached / verdicts)
        if requests:
            record("judge/seconds", seconds / requests)
