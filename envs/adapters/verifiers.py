"""verifiers (https://github.com/PrimeIntellect-ai/verifiers): plays its environments here, and ours there.

Its environments are packages with a function ``load_environment``. Supported is the interface with a rubric
of reward functions, which later versions of verifiers call v0.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from ecrl.envs.adapters.shared import load_target, text_of
from ecrl.envs.adapters.trl import as_trl
from ecrl.envs.async_steps import resolved
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.errors import UsageError


class VerifiersEnv(ReasoningEnv):
    """The data set and rubric of a package's single-turn environment.

    Args:
        target: package or module with ``load_environment``.
        kwargs: arguments of ``load_environment``.
        split: ``train`` or ``val``; the hash of the prompt decides which problems belong to it.

    Raises:
        UsageError: the target cannot be imported, or it makes no v0 environment.
    """

    def __init__(
        self, *, target: str, kwargs: Mapping[str, Any] | None = None, split: Split = "train"
    ) -> None:
        super().__init__(split=split)
        try:
            module = import_module(target)
        except ImportError as error:
            raise UsageError(f"target={target!r} cannot be imported ({error}).") from None
        if not hasattr(module, "load_environment"):
            raise UsageError(f"target={target!r} has no load_environment.")
        made = module.load_environment(**(kwargs or {}))
        for part in ("rubric", "get_dataset"):
            if not hasattr(made, part):
                raise UsageError(
                    f"target={target!r}: its environment has no {part}; a v0 environment is needed."
                )
        self._rows = made.get_dataset()
        self._functions, self._weights = _rubric(made.rubric)
        self._parser = getattr(made, "parser", None)

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a row."""
        row = dict(self._rows[int(rng.integers(len(self._rows)))])
        if isinstance(row.get("info"), str):  # data sets whose rows differ hold JSON
            row["info"] = json.loads(row["info"])
        prompt = row.get("prompt") or [{"role": "user", "content": row["question"]}]
        return Problem(text_of(prompt), {**row, "prompt": prompt})

    def score(self, problem: Problem, response: str) -> Score:
        """Sum the rewards of the rubric's functions by weight; each gets the arguments that it names."""
        row = problem.answer
        known = {
            "prompt": row["prompt"],
            "completion": [{"role": "assistant", "content": response}],
            "answer": row.get("answer", ""),
            "info": row.get("info") or {},
            "task": row.get("task", "default"),
            "state": {},
            "parser": self._parser,
        }
        rewards = [float(_call(f, known)) for f in self._functions]
        total = sum(w * r for w, r in zip(self._weights, rewards, strict=True))
        names = [f.__name__ for f in self._functions]
        return Score(total, dict(zip(names, rewards, strict=True)))


def as_verifiers(env_id: str, count: int, seed: int = 0, **kwargs: Any) -> Any:
    """Return an environment of ecrl as a ``SingleTurnEnv``, for use in a ``load_environment``.

    Args:
        env_id: Gymnasium id of a `ReasoningEnv`.
        count: number of problems in its data set.
        seed: seed of the series of problems.
        **kwargs: arguments of the environment.

    Raises:
        UsageError: verifiers or datasets is not installed.
    """
    dataset_of = load_target("datasets:Dataset").from_list
    rows, reward = as_trl(env_id, count, seed, **kwargs)

    def correct(completion: Any, info: Any) -> float:
        return reward(completions=[completion], seed=[info["seed"]])[0]

    data = [{"question": row["prompt"], "answer": "", "info": {"seed": row["seed"]}} for row in rows]
    rubric = load_target("verifiers:Rubric")(funcs=[correct])
    return load_target("verifiers:SingleTurnEnv")(dataset=dataset_of(data), rubric=rubric)


def _rubric(rubric: Any) -> tuple[list[Callable[..., Any]], Sequence[float]]:
    """Return functions and weights; their attributes have other names in older versions of verifiers."""
    functions = getattr(rubric, "funcs", None) or rubric.reward_funcs
    weights = getattr(rubric, "weights", None) or rubric.reward_weights
    return list(functions), list(weights)


def _call(function: Callable[..., Any], known: Mapping[str, Any]) -> Any:
    parameters = inspect.signature(function).parameters.values()
    everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = known if everything else {p.name: known[p.name] for p in parameters if p.name in known}
    return resolved(function(**named))
