"""The base of every environment: it gives a prompt, takes a response and scores it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

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

    Examples:
        >>> from ecrl import Problem
        >>> Problem(prompt="1 + 2 = ", answer=3).key
        '1 + 2 = '

    Attributes:
        prompt: what the policy reads.
        answer: whatever `ReasoningEnv.score` needs; the policy never sees it.
        key: what identifies the problem. Problems that are the same to a solver must have the same key, so
            that they all belong to the same split. If it is empty, the prompt is the key.
        messages: the conversation that the prompt stands for, ``{"role": …, "content": …}`` each, for
            policies with a chat template. If it is empty, the prompt is one message of the user's.
    """

    prompt: str
    answer: Any
    key: str = ""
    messages: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", self.prompt)


@dataclass(frozen=True)
class Score:
    """What a response earns.

    Examples:
        >>> from ecrl import Score
        >>> Score(1.0, metrics={"steps": 2}, answer="42")
        Score(reward=1.0, metrics={'steps': 2}, answer='42')

    Attributes:
        reward: 1 for a right response, 0 for a wrong one; between them if the task gives partial credit.
        metrics: numbers to log. Give the same names for every response, because a mean is taken over all.
        answer: the final answer in canonical form, for majority votes; None if there is none.
    """

    reward: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None


class ReasoningEnv(gym.Env[str, str], ABC):
    """An environment that poses one problem, takes one response and gives one score.

    A subclass writes `sample_problem` and `score`; one with several turns overrides `step` as well. Both may
    be ``async def``: while one episode awaits its reward, the others go on. Training and validation problems
    are disjoint: the hash of `Problem.key` decides which split a problem belongs to. What a training run has
    to do for the environment is declared by the attributes below.

    Examples:
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
        split: the split that `reset` draws from, ``train`` or ``val``.

    Raises:
        UsageError: ``split`` is neither.
    """

    #: Longest observation and longest response, in characters.
    max_prompt: ClassVar[int] = 1 << 16
    max_response: ClassVar[int] = 1 << 20
    #: Whether threads may step several environments at once. Set it to False for a `step` that draws from
    #: global random generators, or that only the main thread can call: they are then stepped one by one.
    concurrent: bool = True
    #: Most asynchronous steps that a process waits for at once.
    in_flight: int = 64
    #: Seconds that an asynchronous step may take, at most ``trainer.timeout``, which None takes.
    time_limit: float | None = None
    #: Dotted path of a Lightning callback class. A training run makes ``callback(env)``, where ``env`` is the
    #: environment without wrappers, and adds it to its callbacks. None if the environment needs no callback.
    training_callback: ClassVar[str | None] = None

    def __init__(self, *, split: Split = "train") -> None:
        if split not in get_args(Split):
            raise UsageError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}.")
        self.split = split
        self.observation_space = Text(self.max_prompt)
        self.action_space = Text(self.max_response)
        self._problem: Problem | None = None

    @abstractmethod
    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a problem of either split. Use no randomness but ``rng``."""

    @abstractmethod
    def score(self, problem: Problem, response: str) -> Score | Awaitable[Score]:
        """Score a response. It may be any text at all: do not execute it, and do not raise because of it."""

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write a worked solution, from which a warm start learns. Optional.

        Args:
            problem: a problem that `sample_problem` drew.
            rng: picks one of the possible solutions.
            correct: if False, write a text of the same form whose answer is most likely wrong.

        Raises:
            NotImplementedError: the environment writes no solutions.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no worked solutions.")

    def gold(self, problem: Problem) -> str | None:
        """Return the right answer as a person reads it; None where the problem holds no short one."""
        return str(problem.answer) if isinstance(problem.answer, (str, int, float)) else None

    def same_answer(self, problem: Problem, one: str, other: str) -> bool:
        """Whether two extracted answers to a problem count as one in a majority vote: equal texts do."""
        return one == other

    @property
    def problem_indices(self) -> NDArray[np.int64] | None:
        """What ``reset(options={"index": i})`` takes to pose each problem of this split once.

        None if problems are drawn without end.
        """
        return None

    @property
    def problem_keys(self) -> NDArray[np.uint64] | None:
        """The hash of the key of each problem of this split; None if problems are drawn without end."""
        return None

    @property
    def problem(self) -> Problem:
        """The current problem.

        Raises:
            gymnasium.error.ResetNeeded: `reset` has not been called yet.
        """
        if self._problem is None:
            raise gym.error.ResetNeeded(f"{type(self).__name__} has no problem yet; call reset() first.")
        return self._problem

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a problem of this split, or take ``options["problem"]``.

        Returns:
            The prompt, and ``{"problem": Problem}``, with ``"messages"`` if the problem has some.

        Raises:
            UsageError: the environment has no problem in this split.
        """
        super().reset(seed=seed)
        given: Problem | None = (options or {}).get("problem")
        return self._pose(given or self._draw())

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score the response ``action`` and end the episode.

        Returns:
            An empty observation, the reward, terminated=True, truncated=False, and
            ``{"metrics": …, "answer": …}``; all this to be awaited if `score` is ``async def``.
        """
        score = self.score(self.problem, action)
        if isawaitable(score):
            return _awaited(score)  # type: ignore[return-value]  # Gymnasium knows no asynchronous step
        return _ended(score)

    def _pose(self, problem: Problem) -> tuple[str, dict[str, Any]]:
        """Make a problem the current one; return what `reset` does."""
        self._problem = problem
        messages = {"messages": list(problem.messages)} if problem.messages else {}
        return problem.prompt, {"problem": problem, **messages}

    def _draw(self) -> Problem:
        for _ in range(_MAX_DRAWS):
            problem = self.sample_problem(self.np_random)
            if bool(in_validation(stable_hash(problem.key))) == (self.split == "val"):
                return problem
        raise UsageError(
            f"{type(self).__name__} drew {_MAX_DRAWS} problems and none belongs to split={self.split!r}: "
            f"it has too few different ones for a split of {_VAL_ONE_IN - 1} to 1. Widen its settings."
        )


def _ended(score: Score) -> tuple[str, float, bool, bool, dict[str, Any]]:
    return "", score.reward, True, False, {"metrics": dict(score.metrics), "answer": score.answer}


async def _awaited(score: Awaitable[Score]) -> tuple[str, float, bool, bool, dict[str, Any]]:
    return _ended(await score)


def in_validation(keys: ArrayLike) -> NDArray[np.bool_]:
    """Whether problems are for validation, by the hashes of their keys: one in ten is."""
    return np.asarray(np.asarray(keys, np.uint64) % np.uint64(_VAL_ONE_IN) == 0)


def item_seed(seed: int, index: int) -> int:
    """Return the 64-bit seed of item ``index`` in the series ``seed``; neither may be negative.

    The index is a spawn key. With ``seed + index``, neighbouring series would share items.
    ``SeedSequence([seed, index])`` reads both numbers as one row of zero-padded 32-bit words, so that
    ``[5 + (7 << 32), 0]`` would equal ``[5, 7]``.
    """
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1, np.uint64)[0])
