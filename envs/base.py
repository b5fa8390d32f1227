"""The base of every environment: a prompt goes out, a response comes in, a verifier scores it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np

from ecrl.envs.spaces import Text
from ecrl.errors import UsageError
from ecrl.hashing import stable_hash

Split = Literal["train", "val"]

_VAL_ONE_IN = 10
# One problem in ten is for validation, so a split that exists is missed with probability 0.9 ** 1000.
_MAX_DRAWS = 1000


@dataclass(frozen=True)
class Problem:
    """One task for the policy.

        >>> from ecrl import Problem
        >>> Problem(prompt="1 + 2 = ", answer=3).key
        '1 + 2 = '

    Attributes:
        prompt: what the policy reads.
        answer: whatever the verifier needs; the policy never sees it.
        key: canonical identity. Problems that are the same to a solver share it, so that they fall on
            the same side of the split. Empty means the prompt.
    """

    prompt: str
    answer: Any
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.prompt)


@dataclass(frozen=True)
class Score:
    """A verifier's verdict.

        >>> from ecrl import Score
        >>> Score(1.0, metrics={"steps": 2}, answer="42")
        Score(reward=1.0, metrics={'steps': 2}, answer='42')

    Attributes:
        reward: 1 for a right response, 0 for a wrong one, unless the task has degrees.
        metrics: numbers to log; give the same names whatever the verdict, for their mean to be one.
        answer: the final answer in canonical form, for majority votes; None if there is none.
    """

    reward: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None


class ReasoningEnv(gym.Env[str, str], ABC):
    """One problem, one response, one score.

    A subclass writes `sample_problem` and `score`; one with several turns overrides `step`. Train
    and validation problems are disjoint: the hash of `Problem.key` decides the side.

        >>> from ecrl import Problem, ReasoningEnv, Score
        >>> class Reverse(ReasoningEnv):
        ...     def sample_problem(self, rng):
        ...         number = str(rng.integers(10**5))
        ...         return Problem(prompt=f"reverse {number}", answer=number[::-1])
        ...     def score(self, problem, response):
        ...         return Score(float(response == problem.answer))
        >>> env = Reverse()
        >>> prompt, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(prompt.split()[1][::-1])
        >>> reward, terminated
        (1.0, True)

    Args:
        split: which problems `reset` draws.
    """

    #: Longest observation and longest response, in characters.
    max_prompt: ClassVar[int] = 1 << 16
    max_response: ClassVar[int] = 1 << 20
    #: Whether `step` waits for another process, so that many environments are stepped at once, from threads.
    concurrent: ClassVar[bool] = False

    def __init__(self, *, split: Split = "train") -> None:
        if split not in get_args(Split):
            raise UsageError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}.")
        self.split = split
        self.observation_space = Text(self.max_prompt)
        self.action_space = Text(self.max_response)
        self._problem: Problem | None = None

    @abstractmethod
    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a problem of either split; ``rng`` is the only source of randomness."""

    @abstractmethod
    def score(self, problem: Problem, response: str) -> Score:
        """Judge a response. It may be any text at all, so neither trust it nor raise because of it."""

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write a worked solution, as a warm start learns from. Optional.

        Args:
            problem: one that `sample_problem` drew.
            rng: picks among the solutions.
            correct: False asks for one of the same form that most likely answers something else.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no worked solutions.")

    @property
    def problem(self) -> Problem:
        """The problem in play."""
        if self._problem is None:
            raise gym.error.ResetNeeded(f"{type(self).__name__} has no problem yet; call reset() first.")
        return self._problem

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a problem of this split.

        Returns:
            The prompt, and ``{"problem": Problem}``.

        Raises:
            UsageError: the environment has no problem in this split.
        """
        super().reset(seed=seed)
        self._problem = self._draw()
        return self._problem.prompt, {"problem": self._problem}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score the response ``action`` and end the episode.

        Returns:
            No observation, the reward, terminated, not truncated, and ``{"metrics": …, "answer": …}``.
        """
        score = self.score(self.problem, action)
        return "", score.reward, True, False, {"metrics": dict(score.metrics), "answer": score.answer}

    def _draw(self) -> Problem:
        wanted = self.split == "val"
        for _ in range(_MAX_DRAWS):
            problem = self.sample_problem(self.np_random)
            if (stable_hash(problem.key) % _VAL_ONE_IN == 0) == wanted:
                return problem
        raise UsageError(
            f"{type(self).__name__} drew {_MAX_DRAWS} problems and none belongs to split={self.split!r}: "
            f"it has too few different ones for a split of {_VAL_ONE_IN - 1} to 1. Widen its settings."
        )


def item_seed(seed: int, index: int) -> int:
    """Return the 64-bit seed of item ``index`` of the series ``seed``; neither may be negative.

    The index is a spawn key. ``seed + index`` would let neighbouring series share their items, and
    ``SeedSequence([seed, index])`` reads both as one row of zero-padded 32-bit words, so that
    ``[5 + (7 << 32), 0]`` equals ``[5, 7]``.
    """
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0])


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Refuse an argument that is not an integer in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be an integer from {low} to {high}; got {value!r}.")


def check_seconds(name: str, value: object) -> None:
    """Refuse a time limit that is none, or is longer than an hour."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 3600:
        raise UsageError(f"{name} must be seconds above 0, at most 3600; got {value!r}.")


def check_operators(value: object, allowed: str) -> None:
    """Refuse operators that are not a text of different characters out of ``allowed``."""
    if not isinstance(value, str) or not value or len(set(value)) < len(value) or set(value) - set(allowed):
        raise UsageError(f"operators must be some of {allowed!r}, each once; got {value!r}.")
