"""The base of environments that are made of several others, one of which plays each episode."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ecrl.envs.async_steps import is_concurrent, resolved, step
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split, item_seed
from ecrl.envs.safe_calls import make
from ecrl.errors import UsageError


@dataclass(frozen=True)
class MemberProblem:
    """The answer of a composite environment's problem: the member that it comes from, and its own problem.

    Attributes:
        index: index of the member.
        problem: the member's own problem.
    """

    index: int
    problem: Problem


class CompositeEnv(ReasoningEnv):
    """Lets one of its members play each episode; a subclass chooses which.

    Args:
        members: the environments; any of Gymnasium's whose observations and actions are strings.
        split: ``train`` or ``val``.
    """

    def __init__(self, members: Sequence[gym.Env[str, str]], *, split: Split) -> None:
        super().__init__(split=split)
        self.members = list(members)
        self.concurrent = all(map(is_concurrent, self.members))
        self._index = 0

    @property
    def problem_keys(self) -> NDArray[np.uint64] | None:
        """Those of all members that have an end; None if none has."""
        envs = (member.unwrapped for member in self.members)
        found = [env.problem_keys for env in envs if isinstance(env, ReasoningEnv)]
        keys = [some for some in found if some is not None]
        return np.concatenate(keys) if keys else None

    @abstractmethod
    def choose(self, rng: np.random.Generator, options: Mapping[str, Any]) -> int:
        """Return the index of the member that plays the next episode. Use no randomness but ``rng``."""

    @abstractmethod
    def mark(self, metrics: Mapping[str, float], reward: float) -> dict[str, float]:
        """Return the metrics of a step of the current member, marked so that they tell which member it is."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Choose a member and let it draw a problem of this split, with a seed of its own."""
        gym.Env.reset(self, seed=seed)
        self._index = self.choose(self.np_random, options or {})
        member_seed = item_seed(int(self.np_random.integers(2**63)), self._index)
        prompt, info = self.members[self._index].reset(seed=member_seed, options=options)
        own = info.get("problem")
        own = own if isinstance(own, Problem) else Problem(prompt, None)
        self._problem = self._of_member(own)
        return prompt, {**info, "problem": self._problem}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pass the response to the current member."""
        _ = self.problem  # raises if `reset` has not been called
        observation, reward, terminated, truncated, info = step(self.members[self._index], action)
        metrics = self.mark(info.get("metrics", {}), float(reward))
        result = {**info, "metrics": metrics, "answer": info.get("answer")}
        return observation, float(reward), terminated, truncated, result

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a problem of either split from a member."""
        self._index = self.choose(rng, {})
        return self._of_member(self._reasoning(self._index).sample_problem(rng))

    def score(self, problem: Problem, response: str) -> Score:
        """Let the member that the problem comes from score the response."""
        member: MemberProblem = problem.answer
        return resolved(self._reasoning(member.index).score(member.problem, response))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Let the member that the problem comes from write the solution."""
        member: MemberProblem = problem.answer
        return self._reasoning(member.index).solution(member.problem, rng, correct)

    def gold(self, problem: Problem) -> str | None:
        """Let the member that the problem comes from tell the answer, if it can."""
        member: MemberProblem = problem.answer
        env = self.members[member.index].unwrapped
        return env.gold(member.problem) if isinstance(env, ReasoningEnv) else None

    def same_answer(self, problem: Problem, one: str, other: str) -> bool:
        """Let the member that the problem comes from compare the answers, if it can."""
        member: MemberProblem = problem.answer
        env = self.members[member.index].unwrapped
        return env.same_answer(member.problem, one, other) if isinstance(env, ReasoningEnv) else one == other

    def close(self) -> None:
        """Close all members."""
        for env in self.members:
            env.close()

    def _of_member(self, own: Problem) -> Problem:
        return Problem(own.prompt, MemberProblem(self._index, own), f"{self._index}: {own.key}", own.messages)

    def _reasoning(self, index: int) -> ReasoningEnv:
        env = self.members[index].unwrapped
        if not isinstance(env, ReasoningEnv):
            raise NotImplementedError(
                f"{env} is not a ReasoningEnv, so it cannot draw or score single problems."
            )
        return env


def make_member(env_id: str, split: Split, kwargs: Mapping[str, Any]) -> gym.Env[str, str]:
    """Make a member by its id.

    Raises:
        UsageError: the id is no string, the arguments are no mapping, or `safe_calls.make` refuses them.
    """
    if not isinstance(env_id, str) or not isinstance(kwargs, Mapping):
        raise UsageError(f"A member is an id and a mapping of arguments; got {env_id!r} and {kwargs!r}.")
    return make(env_id, split, kwargs)
