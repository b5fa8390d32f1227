"""TRL: data sets with a ``prompt`` column, scored by reward functions that read the other columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym

from ecrl.envs.adapters.shared import load_target, text_of
from ecrl.envs.arguments import check_seconds, check_types
from ecrl.envs.async_steps import resolved
from ecrl.envs.base import Problem, ReasoningEnv, Score, item_seed
from ecrl.envs.datasets.cells import conversation, joined, read_cell, value_at
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows_env import RowsEnv
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierTimeoutError, shared_pool
from ecrl.errors import UsageError


class RewardFunctionEnv(RowsEnv):
    """Rows scored by functions ``f(prompts, completions, **columns) -> list of rewards``, summed by weight.

    The functions run in the verifier pool. If one hangs or dies, the response scores 0 and is counted.

    Args:
        functions: ``package.module:function``, one or several.
        weights: one for each function; None gives each the weight 1.
        prompt_column: string, or chat messages; completions are then chat messages too, as in TRL.
        time_limit: seconds for all functions together.
        **rows: which rows to take; see `RowsEnv`.

    Raises:
        UsageError: a function cannot be imported, the weights do not match, or the rows cannot be read.
    """

    def __init__(
        self,
        *,
        functions: str | Sequence[str],
        weights: Sequence[float] | None = None,
        prompt_column: str = "prompt",
        time_limit: float = 10.0,
        **rows: Any,
    ) -> None:
        check_types(RewardFunctionEnv.__init__, locals())
        check_seconds("time_limit", time_limit)
        self._functions = (functions,) if isinstance(functions, str) else tuple(functions)
        self._weights = tuple(weights or [1.0] * len(self._functions))
        if len(self._weights) != len(self._functions):
            raise UsageError(
                f"{len(self._functions)} functions need as many weights; got {len(self._weights)}."
            )
        for target in self._functions:
            load_target(target)
        self._prompt_column = prompt_column
        self._time_limit = time_limit
        super().__init__([prompt_column], **rows)

    def problem_of(self, row: Row) -> Problem:
        """Read the row's prompt.

        Raises:
            ValueError: it is neither a string nor chat messages.
        """
        messages = read_cell(row, self._prompt_column, conversation)
        return Problem(joined(messages), row, messages=messages)

    def score(self, problem: Problem, response: str) -> Score:
        """Sum the rewards of the functions; None counts as 0, as in TRL."""
        arguments = self._functions, dict(problem.answer), self._prompt_column, response
        lost = {"timeout": 0.0, "crash": 0.0}
        names = [target.rpartition(":")[2] for target in self._functions]
        try:
            rewards = shared_pool().run(_rewards, *arguments, timeout=self._time_limit)
        except VerifierTimeoutError:
            rewards, lost["timeout"] = [0.0] * len(names), 1.0
        except VerifierCrashError:
            rewards, lost["crash"] = [0.0] * len(names), 1.0
        total = sum(w * r for w, r in zip(self._weights, rewards, strict=True))
        return Score(total, dict(zip(names, rewards, strict=True)) | lost)


def _rewards(functions: Sequence[str], row: dict[str, Any], prompt_column: str, response: str) -> list[float]:
    prompt = value_at(row, prompt_column)
    completion: Any = response if isinstance(prompt, str) else [{"role": "assistant", "content": response}]
    columns = {name: [value] for name, value in row.items() if name not in ("prompt", "completion")}
    answers = [load_target(f)(prompts=[prompt], completions=[completion], **columns) for f in functions]
    return [float(answer[0] or 0.0) for answer in answers]


def as_trl(
    env_id: str, count: int, seed: int = 0, **kwargs: Any
) -> tuple[list[dict[str, Any]], Callable[..., list[float]]]:
    """Return an environment's problems as rows for a data set, and the reward function that scores them.

    For environments with one turn. Give them to TRL as ``datasets.Dataset.from_list(rows)`` and
    ``reward_funcs=[function]``.

    Args:
        env_id: Gymnasium id of a `ReasoningEnv`.
        count: number of problems.
        seed: seed of the series of problems.
        **kwargs: arguments of the environment.

    Returns:
        Rows with ``prompt`` and ``seed``, and the function.

    Raises:
        UsageError: the environment is not a `ReasoningEnv`.
    """
    env = gym.make(env_id, disable_env_checker=True, **kwargs).unwrapped
    if not isinstance(env, ReasoningEnv):
        raise UsageError(f"{env_id} is not a ReasoningEnv, so its problems cannot be scored one by one.")
    # Shifted, so that a seed fits a column of signed 64-bit integers.
    seeds = [item_seed(seed, i) >> 1 for i in range(count)]
    rows = [{"prompt": env.reset(seed=s)[0], "seed": s} for s in seeds]

    def reward(*, completions: Sequence[Any], seed: Sequence[int], **columns: Any) -> list[float]:
        """Score each completion (a string or chat messages) for the problem of its seed."""
        return [_score(env, s, text_of(c)) for s, c in zip(seed, completions, strict=True)]

    reward.__name__ = env_id.rpartition("/")[2].partition("-")[0].lower()
    return rows, reward


def _score(env: ReasoningEnv, seed: int, response: str) -> float:
    info: Mapping[str, Any] = env.reset(seed=seed)[1]
    return resolved(env.score(info["problem"], response)).reward
