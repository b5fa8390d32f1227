"""skyrl-gym (https://github.com/NovaSky-AI/SkyRL): plays its environments here, and ours there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym

from ecrl.envs.adapters.shared import load_target, numbers, text_of
from ecrl.envs.arguments import check_types
from ecrl.envs.async_steps import resolved, step
from ecrl.envs.base import Problem, Score
from ecrl.envs.datasets.cells import prompt_text, read_cell, value_at
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows_env import RowsEnv


class SkyRLEnv(RowsEnv):
    """A text environment of skyrl-gym, made anew for each row and played by ``init(prompt)`` and ``step``.

    Args:
        target: id in skyrl-gym's registry, e.g. ``gsm8k``, or ``package.module:Class``.
        prompt_column: string or chat messages.
        config: the environment's ``env_config``.
        **rows: which rows to take; see `RowsEnv`. The environment gets its row as ``extras``.

    Raises:
        UsageError: the target cannot be imported, or the rows cannot be read or make no problems.
    """

    #: Few, because an environment is made for each.
    rows_tried: ClassVar[int] = 1000

    def __init__(
        self,
        *,
        target: str,
        prompt_column: str = "prompt",
        config: Mapping[str, Any] | None = None,
        **rows: Any,
    ) -> None:
        check_types(SkyRLEnv.__init__, locals())
        self._target = target
        self._prompt_column = prompt_column
        self._config = dict(config or {})
        self._env: Any = None
        super().__init__([prompt_column], **rows)

    def problem_of(self, row: Row) -> Problem:
        """Return the prompt that the environment makes of the row's prompt.

        Raises:
            ValueError: the row's prompt is neither a string nor chat messages.
        """
        key = self.key_of(row)
        messages, _ = self._make(row).init(_messages(value_at(row, self._prompt_column)))
        return Problem(text_of(messages), row, key, _messages(messages))

    def key_of(self, row: Row) -> str:
        """Read the row's own prompt, which the environment may add to."""
        return read_cell(row, self._prompt_column, prompt_text)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `RowsEnv.reset`. Every episode gets a new environment."""
        answer = super().reset(seed=seed, options=options)
        row: Row = self.problem.answer
        self._env = self._make(row)
        self._env.init(_messages(value_at(row, self._prompt_column)))
        return answer

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Pass the response on."""
        self.problem  # noqa: B018  (raises before the first reset)
        output = resolved(self._env.step(action))
        done = bool(output["done"])
        metrics = numbers(self._env.get_metrics()) if done else {}
        info = {"metrics": metrics, "answer": None}
        return text_of(output["observations"]), float(output["reward"]), done, False, info

    def score(self, problem: Problem, response: str) -> Score:
        """Score a first response, in a new environment."""
        env = self._make(problem.answer)
        env.init(_messages(value_at(problem.answer, self._prompt_column)))
        return Score(float(resolved(env.step(response))["reward"]), numbers(env.get_metrics()))

    def _make(self, row: Row) -> Any:
        if ":" in self._target:
            return load_target(self._target)(env_config=self._config, extras=dict(row))
        return load_target("skyrl_gym:make")(self._target, env_config=self._config, extras=dict(row))


def as_skyrl(env_id: str, **kwargs: Any) -> Any:
    """Return a class for skyrl-gym's ``register`` that plays an environment of ecrl.

    ``extras`` of a row must hold ``seed``. The prompt of ``reset(seed)`` takes the place of the row's prompt.

    Args:
        env_id: Gymnasium id.
        **kwargs: arguments of the environment.

    Raises:
        UsageError: skyrl-gym is not installed.
    """
    base: Any = load_target("skyrl_gym.envs.base_text_env:BaseTextEnv")

    class EcrlTextEnv(base):  # type: ignore[misc]
        """``init`` resets, ``step`` steps."""

        def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
            super().__init__()
            self.env: gym.Env[str, str] = gym.make(env_id, disable_env_checker=True, **kwargs)
            self.seed = int((extras or {})["seed"])
            self.metrics: dict[str, float] = {}

        def init(self, prompt: Any) -> tuple[list[dict[str, str]], dict[str, Any]]:
            text, _ = self.env.reset(seed=self.seed)
            return [{"role": "user", "content": text}], {}

        def step(self, action: str) -> dict[str, Any]:
            self.turns += 1
            observation, reward, terminated, truncated, info = step(self.env, action)
            self.metrics = numbers(info.get("metrics"))
            done = terminated or truncated
            observations = [] if done else [{"role": "user", "content": observation}]
            return {"observations": observations, "reward": float(reward), "done": done, "metadata": {}}

        def get_metrics(self) -> dict[str, Any]:
            return dict(self.metrics)

    return EcrlTextEnv


def _messages(prompt: Any) -> list[dict[str, str]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]
