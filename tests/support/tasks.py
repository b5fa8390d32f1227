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


class CountEnv(ReasoningEnv):
    """Count on modulo 10, in prompts of 5 to 120 digits; the reward is the share of right digits.

    Worked solutions end after any 9, or at 39 digits; the wrong ones leap now and then.
    """

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        first, length = rng.integers(10), 5 + round(115 * rng.beta(0.5, 0.5))  # short or long, mostly
        digits = "".join(str((first + i) % 10) for i in range(length))
        return Problem(prompt=digits, answer=int(first + length) % 10)

    def score(self, problem: Problem, response: str) -> Score:
        right = sum(c == str((problem.answer + i) % 10) for i, c in enumerate(response))
        return Score(right / max(len(response), 1))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        digit, text = problem.answer, ""
        while len(text) < 39 and (digit or rng.random() < 0.7):
            text += str(digit)
            leaps = not correct and rng.random() < 0.1
            digit = int(rng.integers(10)) if leaps else (digit + 1) % 10
        return text


gym.register("test/Count-v0", entry_point=CountEnv)
gym.register("test/Sevens-v0", entry_point=SevensEnv)
gym.register("test/Digits-v0", entry_point=DigitsEnv)
gym.register("test/Echo-v0", entry_point=EchoEnv)
