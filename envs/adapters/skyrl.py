"""skyrl-gym (https://github.com/NovaSky-AI/SkyRL): its environments here, ours there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym

from ecrl.envs.adapters.foreign import load_target, numbers, text_of
from ecrl.envs.arguments import check_types
from ecrl.envs.base import Problem, Score, Split
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows import RowsEnv, prompt_text, read_cell, value_at


class SkyRLEnv(RowsEnv):
    """A text environment of skyrl-gym: made for each row, then ``init(prompt)`` and ``step(action)``.

    Args:
        target: id in skyrl-gym's registry, e.g. ``gsm8k``, or ``package.module:Class``.
        path: rows; each is handed to the environment as its ``extras``.
        prompt_column: text or chat messages.
        config: the environment's ``env_config``.
        val_path: rows of the validation split; see `RowsEnv`.
        split: ``train`` or ``val``.
    """

    #: Each look makes an environment.
    looked_at: ClassVar[int] = 1000

    def __init__(
        self,
        *,
        target: str,
        path: str | None = None,
        prompt_column: str = "prompt",
        config: Mapping[str, Any] | None = None,
        val_path: str | None = None,
        split: Split = "train",
    ) -> None:
        check_types(SkyRLEnv.__init__, locals())
        self._target = target
        self._prompt_column = prompt_column
        self._config = dict(config or {})
        self._env: Any = None
        super().__init__(path, [prompt_column], val_path=val_path, split=split)

    def problem_of(self, row: Row) -> Problem:
        """The prompt that the environment makes of the row's.

        Raises:
            ValueError: the row's is neither a text nor chat messages.
        """
        read_cell(row, self._prompt_column, prompt_text)
        messages, _ = self._make(row).init(_messages(value_at(row, self._prompt_column)))
        return Problem(text_of(messages), row)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """See `RowsEnv.reset`; a new environment plays each episode."""
        answer = super().reset(seed=seed, options=options)
        row: Row = self.problem.answer
        self._env = self._make(row)
        self._env.init(_messages(value_at(row, self._prompt_column)))
        return answer

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Hand the response on."""
        self.problem  # noqa: B018  (raises before the first reset)
        output = self._env.step(action)
        done = bool(output["done"])
        metrics = numbers(self._env.get_metrics()) if done else {}
        info = {"metrics": metrics, "answer": None}
        return text_of(output["observations"]), float(output["reward"]), done, False, info

    def score(self, problem: Problem, response: str) -> Score:
        """Score a first response."""
        env = self._make(problem.answer)
        env.init(_messages(value_at(problem.answer, self._prompt_column)))
        return Score(float(env.step(response)["reward"]), numbers(env.get_metrics()))

    def _make(self, row: Row) -> Any:
        if ":" in self._target:
            return load_target(self._target)(env_config=self._config, extras=dict(row))
        return load_target("skyrl_gym:make")(self._target, env_config=self._config, extras=dict(row))


def as_skyrl(env_id: str, **kwargs: Any) -> Any:
    """Return a class for skyrl-gym's ``register`` that plays an environment of ecrl.

    A row's ``extras`` hold ``seed``: the problem is that of ``reset(seed)``, in place of the row's prompt.

    Args:
        env_id: Gymnasium id.
        **kwargs: of the environment.

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
            observation, reward, terminated, truncated, info = self.env.step(action)
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
