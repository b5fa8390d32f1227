"""One running episode, and what its environment is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np

from ecrl.envs.async_steps import Step, StepLostError, is_concurrent, step, within
from ecrl.envs.base import ReasoningEnv
from ecrl.envs.safe_calls import as_text, env_id, user_code
from ecrl.rollout.opening import Opening
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.rollout.voting import vote_classes

T = TypeVar("T")
THREADS = 64  # that step environments; most of them wait


@dataclass
class Episode:
    """The state of one episode.

    Attributes:
        place: names the episode in the name of a file.
        failed: whether the environment's code raised.
        observation: what the environment said to the last response.
    """

    env: gym.Env[str, str]
    problem_id: int
    sample_index: int
    key: int
    opening: Opening
    place: str
    context_ids: list[int] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    failed: bool = False
    observation: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    vote: int | None = None

    @property
    def input_ids(self) -> list[int]:
        """All token ids that the policy reads before its next turn."""
        ids = list(self.opening.ids or ())
        for turn in self.turns:
            ids += turn.context_ids + turn.completion.token_ids
        return ids + self.context_ids

    def step(self) -> None:
        """Give the last response to the environment, and take what it says.

        Raises:
            EcrlError: the environment's code failed.
        """
        with user_code(f"{env_id(self.env)}.step"):
            self._take(step(self.env, self.texts[-1]))

    async def step_async(self, seconds: float) -> None:
        """Do the same with an asynchronous environment, whose step may take so long.

        Raises:
            EcrlError: the environment's code failed, or did not return in time.
        """
        name = f"{env_id(self.env)}.step"
        with user_code(name, but=(StepLostError,)):
            later: Any = self.env.step(self.texts[-1])
            self._take(await within(seconds, later, name))

    def _take(self, result: Step) -> None:
        observation, reward, terminated, truncated, info = result
        gain = finite(reward)
        for name, value in info.get("metrics", {}).items():
            finite(value, f"metric {name!r}")
        self.observation = as_text(observation, "observation")
        self.turns[-1] = replace(self.turns[-1], reward=gain)
        self.reward += gain
        self.terminated, self.truncated, self.info = bool(terminated), bool(truncated), info

    def fail(self) -> None:
        """End the episode with a reward of 0, because the environment's code failed."""
        self.failed = self.terminated = True
        self.reward, self.info = 0.0, {}
        self.turns = [replace(turn, reward=0.0) for turn in self.turns]

    def trajectory(self) -> Trajectory:
        """Return what the episode came to."""
        cut = bool(self.turns) and self.turns[-1].completion.finish_reason == "length"
        return Trajectory(
            prompt_ids=self.opening.ids or [],
            turns=self.turns,
            problem_id=self.problem_id,
            sample_index=self.sample_index,
            reward=self.reward,
            terminated=self.terminated and not cut,
            truncated=self.truncated or cut,
            metrics=self.info.get("metrics", {}),
            answer=self.info.get("answer"),
            vote=self.vote,
            gold=self.opening.gold,
            prompt=self.opening.text,
            response="".join(self.texts),
            overlong=self.opening.overlong,
            failed=self.failed,
        )


def finite(value: Any, what: str = "reward") -> float:
    """Return a number that an environment reports, as a float.

    Raises:
        ValueError: it is not a number, or not finite.
    """
    if not isinstance(value, (int, float, np.number, np.bool_)) or not math.isfinite(value):
        raise ValueError(f"the {what} is {value!r}, not a finite number")
    return float(value)


def in_threads(act: Callable[[T], None], items: Sequence[T], example: Sequence[Episode]) -> None:
    """Act on every item: in threads where the environments allow that, else one by one."""
    if example and is_concurrent(example[0].env):
        with ThreadPoolExecutor(min(len(items), THREADS)) as threads:
            list(threads.map(act, items))
    else:
        for item in items:
            act(item)


def count_votes(group: Sequence[Episode]) -> None:
    """Give the episodes of one problem their classes of answers.

    Raises:
        EcrlError: the environment's code failed.
    """
    env = group[0].env.unwrapped

    def same(one: str, other: str) -> bool:
        if not isinstance(env, ReasoningEnv):
            return one == other
        with user_code(f"{env_id(env)}.same_answer"):
            return env.same_answer(env.problem, one, other)

    answers = [e.info.get("answer") for e in group]
    for episode, vote in zip(group, vote_classes(answers, [e.reward >= 1 for e in group], same), strict=True):
        episode.vote = vote
