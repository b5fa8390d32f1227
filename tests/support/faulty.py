"""Parts that fail on purpose, on the second process of a run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch

from ecrl.engines.base import Completion, Sampling
from ecrl.engines.hf import HFEngine
from ecrl.envs.base import Problem, Score
from tests.support.tasks import DigitsEnv


def is_second() -> bool:
    return os.environ.get("RANK") == "1"


class SlowDigits(DigitsEnv):
    """Takes its time, so that a test can strike within a run; raises if told to."""

    scored = 0  # by this process

    def __init__(self, *, raises_at: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raises_at = raises_at

    def score(self, problem: Problem, response: str) -> Score:
        SlowDigits.scored += 1
        if is_second() and SlowDigits.scored == self.raises_at:
            raise ZeroDivisionError("a fault of the user's own")
        time.sleep(0.02)
        return super().score(problem, response)


class HangingEngine(HFEngine):
    """Does not return from its second round on the second process."""

    rounds = 0

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        self.rounds += 1
        if is_second() and self.rounds == 2:
            time.sleep(600)
        return super().draw(prompts, sampling, keys)


class FreezingEngine(HFEngine):
    """Stops the second process as it draws."""

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        if is_second():
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().draw(prompts, sampling, keys)


class GreedyEngine(HFEngine):
    """Asks for more memory than there is, on the second process."""

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        if is_second():
            torch.empty(1 << 50)
        return super().draw(prompts, sampling, keys)


gym.register("test/SlowDigits-v0", entry_point=SlowDigits)
