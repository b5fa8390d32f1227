"""Environments, strategies and monitors of a user's own that raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import lightning as L
from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.envs.base import Problem, Score
from ecrl.envs.verifiers.pool import shared_pool
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.module import PolicyModule
from ecrl.training.observer import RolloutObserver
from tests.support import verifier_faults
from tests.support.tasks import DigitsEnv, EchoEnv


def fail() -> Any:
    raise ZeroDivisionError("a fault of the user's own")


class RaisingEnv(DigitsEnv):
    """Raises in one of its hooks, at the problems whose prompts end in one of some digits.

    Args:
        hook: where.
        digits: last digits of the prompts of those problems.
    """

    def __init__(self, *, hook: str = "score", digits: str = "0123456789", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hook, self.digits = hook, digits

    def _maybe(self, hook: str, problem: Problem) -> None:
        if hook == self.hook and problem.prompt.strip()[-1] in self.digits:
            fail()

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        prompt, info = super().reset(**kwargs)
        self._maybe("reset", self.problem)
        return prompt, info

    def score(self, problem: Problem, response: str) -> Score:
        self._maybe("score", problem)
        if self.hook == "stop":
            next(iter(()))
        if self.hook == "pool":
            shared_pool().run(verifier_faults.fail, timeout=30.0)
        return Score(super().score(problem, response).reward, answer=response)

    def gold(self, problem: Problem) -> str | None:
        self._maybe("gold", problem)
        return "1"

    def same_answer(self, problem: Problem, one: str, other: str) -> bool:
        self._maybe("same_answer", problem)
        return super().same_answer(problem, one, other)


class RaisingAloneEnv(RaisingEnv):
    """Is stepped in no thread."""

    concurrent = False


class RaisingEchoEnv(EchoEnv):
    """Raises in its second turn; the first one earned something."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 1.0, terminated, truncated, info

    def score(self, problem: Problem, response: str) -> Score:
        return Score(fail())


class RaisingStrategy(Strategy, WeightMixin):
    """Raises in planning."""

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        return weights * self.share

    @property
    def share(self) -> float:
        return float(fail())


class RaisingMonitor(L.Callback, RolloutObserver):
    """Raises as it observes the rollout of an iteration.

    Args:
        iteration: which, from 0.
    """

    def __init__(self, *, iteration: int = 0) -> None:
        self.iteration = iteration

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        if module.iteration == self.iteration:
            fail()


gym.register("test/Raising-v0", entry_point=RaisingEnv)
gym.register("test/RaisingAlone-v0", entry_point=RaisingAloneEnv)
gym.register("test/RaisingEcho-v0", entry_point=RaisingEchoEnv)
