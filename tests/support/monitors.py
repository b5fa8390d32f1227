"""What monitors look at: a module that only records, plans, trajectories; and what they draw."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion
from ecrl.metrics import MetricsRecorder
from ecrl.policy.tiny_model import build_tokenizer
from ecrl.rollout.trajectory import Trajectory, Turn


def recording(iteration: int = 0) -> Any:
    """A module that only records."""
    return SimpleNamespace(
        recorder=MetricsRecorder(),
        iteration=iteration,
        tokenizer=build_tokenizer(),
        process_group=ProcessGroup(),
    )


def plan_of(tokens: TokenBatch) -> LossPlan:
    """The plan of a batch without strategies."""
    logprobs, entropy = tokens.logprobs.detach(), tokens.entropy.detach()
    return make_loss_plan(replace(tokens, logprobs=logprobs, entropy=entropy), Objective(), [])


def trajectory(problem: int, reward: float) -> Trajectory:
    """One token that earned a reward."""
    turn = Turn([], Completion([5], [-1.0], [1.0], "stop", 0))
    return Trajectory([1], [turn], problem, 0, reward, True, False, {}, None, "", "")


def faces(figure: Figure) -> list[Any]:
    """Colours of the boxes, by column of a token picture."""
    return [
        np.concatenate([c.get_facecolor() for c in axes.collections if isinstance(c, PatchCollection)])
        for axes in figure.axes
        if any(isinstance(c, PatchCollection) for c in axes.collections)
    ]
