"""An environment made of others: one of them is in play at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Score, Split, item_seed
from ecrl.envs.safe_calls import make
from ecrl.errors import UsageError


@dataclass(frozen=True)
class Member:
    """What a problem of several environments carries as its answer.

    Attributes:
        index: of the environment that it comes from.
        problem: that environment's own problem.
    """

    index: int
    problem: Problem


class CompositeEnv(ReasoningEnv):
    """Plays the episode of one of its members; a subclass says whose turn it is.

    Args:
        members: the environments, any of Gymnasium's with texts in and out.
        split: ``train`` or ``val``.
    """

    #: Members may wait; instances share nothing.
    concurrent: ClassVar[bool] = True

    def __init__(self, members: Sequence[gym.Env[str, str]], *, split: Split) -> None:
        super().__init__(split=split)
        self.members = list(members)
        self._index = 0

    @abstractmethod
    def choose(self, rng: np.random.Generator, options: Mapping[str, Any]) -> int:
        """Return the index of the member to draw a problem from; ``rng`` is the only randomness."""

    @abstractmethod
    def mark(self, metrics: Mapping[str, float], reward: float) -> dict[str, float]:
        """Return the metrics of a step of the member in play, so marked that they tell which it was."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Choose a member and let it draw a problem of this split, by a seed of its own."""
        gym.Env.reset(self, seed=seed)
        self._index = self.choose(self.np_random, options or {})
        member_seed = item_seed(int(self.np_random.integers(2**63)), self._index)
        prompt, info = self.members[self._index].reset(seed=member_seed, options=options)
        own = info.get("problem")
        own = own if isinstance(own, Problem) else Problem(prompt, None)
        self._problem = self._of_member(own)
        return prompt, {**info, "problem": self._problem}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Give the response to the member in play."""
        _ = self.problem  # says so where there is none yet
        observation, reward, terminated, truncated, info = self.members[self._index].step(action)
        metrics = self.mark(info.get("metrics", {}), float(reward))
        result = {**info, "metrics": metrics, "answer": info.get("answer")}
        return observation, float(reward), terminated, truncated, result

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a problem of either split from a member."""
        self._index = self.choose(rng, {})
        return self._of_member(self._reasoning(self._index).sample_problem(rng))

    def score(self, problem: Problem, response: str) -> Score:
        """Let the member judge that the problem comes from."""
        member: Member = problem.answer
        return self._reasoning(member.index).score(member.problem, response)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Let the member write it that the problem comes from."""
        member: Member = problem.answer
        return self._reasoning(member.index).solution(member.problem, rng, correct)

    def close(self) -> None:
        """Close all members."""
        for env in self.members:
            env.close()

    def _of_member(self, own: Problem) -> Problem:
        return Problem(own.prompt, Member(self._index, own), f"{self._index}: {own.key}")

    def _reasoning(self, index: int) -> ReasoningEnv:
        env = self.members[index].unwrapped
        if not isinstance(env, ReasoningEnv):
            raise NotImplementedError(
                f"{env} is no ReasoningEnv, so it has no problems to judge by themselves."
            )
        return env


def make_member(env_id: str, split: Split, kwargs: Mapping[str, Any]) -> gym.Env[str, str]:
    """Make a member of its id.

    Raises:
        UsageError: see `ecrl.envs.safe_calls.make`, or these are no id and no arguments.
    """
    if not isinstance(env_id, str) or not isinstance(kwargs, Mapping):
        raise UsageError(f"A member is an id and a mapping of arguments; got {env_id!r} and {kwargs!r}.")
    return make(env_id, split, kwargs)
