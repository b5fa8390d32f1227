"""Environments with asynchronous steps, and what they may do wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Score
from tests.support.tasks import DigitsEnv, EchoEnv


class AwaitingEcho(EchoEnv):
    """Two turns, each of which awaits something."""

    at_once: ClassVar[int] = 0
    most_at_once: ClassVar[int] = 0
    wanted: ClassVar[int] = 1  # a step waits until so many were taken at once

    async def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:  # type: ignore[override]
        cls = AwaitingEcho
        cls.at_once += 1
        cls.most_at_once = max(cls.most_at_once, cls.at_once)
        try:
            for _ in range(500):
                await asyncio.sleep(0.02)
                if cls.most_at_once >= cls.wanted:
                    break
            return super().step(action)
        finally:
            cls.at_once -= 1


class NarrowEcho(AwaitingEcho):
    """The same, three at a time."""

    in_flight = 3


class AwaitingDigits(DigitsEnv):
    """Scores like ``Digits``, later; goes wrong at the problems whose prompts end in an even digit.

    Args:
        fault: how: not at all, or by ``raise``, ``hang``, ``cancel`` (its own task), ``break`` (a task that
            it awaits is cancelled), ``signal`` (Ctrl-C, twice).
        time_limit: seconds for a step.
    """

    def __init__(self, *, fault: str = "", time_limit: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fault, self.time_limit = fault, time_limit

    async def score(self, problem: Problem, response: str) -> Score:  # type: ignore[override]
        await asyncio.sleep(0.01)
        if self.fault and int(problem.prompt) % 2 == 0:
            await self._go_wrong()
        return super().score(problem, response)

    async def _go_wrong(self) -> None:
        if self.fault == "raise":
            raise ZeroDivisionError("a fault of the user's own")
        task = asyncio.ensure_future(asyncio.sleep(3600))
        if self.fault == "break":
            task.cancel()
        if self.fault == "cancel":
            current: Any = asyncio.current_task()
            current.cancel()
        if self.fault == "signal":
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
        await task


class HangsLater(AwaitingDigits):
    """Hangs once as many steps were taken as a rollout of ``TINY`` has, and some more."""

    steps: ClassVar[int] = 0

    async def score(self, problem: Problem, response: str) -> Score:
        HangsLater.steps += 1
        await asyncio.sleep(3600 * (HangsLater.steps > 40))
        return await super().score(problem, response)


class LaterSums(ReasoningEnv):
    """Add two numbers; the verdict is awaited."""

    async def score(self, problem: Problem, response: str) -> Score:
        await asyncio.sleep(0)
        return Score(float(response == problem.answer), answer=response)

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        one, other = rng.integers(10**4, size=2)
        return Problem(f"{one}+{other}\n", str(one + other))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        return str(problem.answer) if correct else "0"


for each in (AwaitingEcho, NarrowEcho, AwaitingDigits, HangsLater, LaterSums):
    gym.register(f"test/{each.__name__}-v0", entry_point=each)
gym.register("test/Limited-v0", entry_point=LaterSums, max_episode_steps=3)
