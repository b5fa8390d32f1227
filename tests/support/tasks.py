"""Environments for tests, registered the way an outside package would."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Score


class DigitsEnv(ReasoningEnv):
    """Write digits: the reward is the share of digits in the response. Dense, so anything learns it."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem(prompt=f"{rng.integers(10**9)}\n", answer=None)

    def score(self, problem: Problem, response: str) -> Score:
        return Score(sum(c.isdigit() for c in response) / max(len(response), 1))


class EchoEnv(ReasoningEnv):
    """Two turns: the environment answers the first response, then scores the second."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem(prompt=f"{rng.integers(10**9)}\n", answer=None)

    def reset(self, **kwargs: Any) -> tuple[str, dict[str, Any]]:
        self.turn = 0
        return super().reset(**kwargs)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turn += 1
        if self.turn == 1:
            return "\nagain\n", 0.0, False, False, {}
        return super().step(action)

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(len(response) % 2))


class SevensEnv(ReasoningEnv):
    """Write sevens: the reward is their share, so a surer policy always earns more."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem(prompt=f"{rng.integers(10**9)}\n", answer=None)

    def score(self, problem: Problem, response: str) -> Score:
        return Score(response.count("7") / max(len(response), 1))


gym.register("test/Sevens-v0", entry_point=SevensEnv)
gym.register("test/Digits-v0", entry_point=DigitsEnv)
gym.register("test/Echo-v0", entry_point=EchoEnv)
