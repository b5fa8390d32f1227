"""GEM (https://github.com/axon-rl/gem): plays its environments here, and ours there."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from ecrl.envs.adapters.shared import load_target, numbers
from ecrl.envs.arguments import check_types
from ecrl.envs.async_steps import resolved, step
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.safe_calls import global_seed
from ecrl.errors import UsageError


class GemEnv(ReasoningEnv):
    """An environment of GEM: a class with ``reset(seed)`` and ``step(action)``.

    Args:
        target: id in GEM's registry, e.g. ``game:GuessTheNumber-v0``, or ``package.module:Class``.
        kwargs: arguments of its constructor.
        split_by: what decides the split of a problem: ``prompt``, or ``seed`` for games whose first
            observation is always the same.
        split: ``train`` or ``val``.

    Raises:
        UsageError: the target cannot be imported or made.
    """

    #: The global random generators are seeded for each step.
    concurrent = False

    def __init__(
        self,
        *,
        target: str,
        kwargs: dict[str, Any] | None = None,
        split_by: Literal["prompt", "seed"] = "prompt",
        split: Split = "train",
    ) -> None:
        super().__init__(split=split)
        check_types(GemEnv.__init__, locals())
        self._by_seed = split_by == "seed"
        self._env = _make(target, kwargs or {})
        self._state = 0

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Reset the environment to a new problem, which becomes the current one."""
        self._state = int(rng.integers(2**31))
        with global_seed(self._state):
            prompt, _ = self._env.reset(seed=self._state)
        return Problem(prompt, self._state, str(self._state) if self._by_seed else prompt)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pass the response on; the numbers in the environment's info become metrics."""
        self._state += 1
        with global_seed(self._state):
            observation, reward, terminated, truncated, info = resolved(self._env.step(action))
        done = {"metrics": numbers(info), "answer": None}
        # When a turn limit ends an episode, GEM sets both flags.
        return str(observation), float(reward), bool(terminated and not truncated), bool(truncated), done

    def score(self, problem: Problem, response: str) -> Score:
        """Score a first response on a copy of the environment."""
        env = deepcopy(self._env)
        with global_seed(int(problem.answer)):
            env.reset(seed=int(problem.answer))
            _, reward, _, _, info = resolved(env.step(response))
        return Score(float(reward), numbers(info))


def as_gem(env_id: str, **kwargs: Any) -> Any:
    """Return an environment of ecrl as an environment of GEM.

    Args:
        env_id: Gymnasium id.
        **kwargs: arguments of the environment.

    Raises:
        UsageError: GEM is not installed.
    """
    core: Any = load_target("gem.core:Env")

    class EcrlEnv(core):  # type: ignore[misc]
        """``reset`` and ``step`` are Gymnasium's."""

        def __init__(self) -> None:
            self.env: gym.Env[str, str] = gym.make(env_id, disable_env_checker=True, **kwargs)

        def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
            return self.env.reset(seed=seed)

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            observation, reward, terminated, truncated, info = step(self.env, action)
            return observation, float(reward), terminated, truncated, info

        def spawn(self, same_state: bool = False, **changes: Any) -> Any:
            if same_state:
                return deepcopy(self)
            return as_gem(env_id, **kwargs | changes)

    return EcrlEnv()


def _make(target: str, kwargs: dict[str, Any]) -> Any:
    """Make the class that ``package.module:Class`` names, or an id of GEM's registry if there is no dot."""
    module = target.partition(":")[0]
    if "." in module:
        return load_target(target)(**kwargs)
    try:
        return load_target("gem:make")(target, **kwargs)
    except ValueError as error:
        raise UsageError(f"target={target!r}: {error}") from None
