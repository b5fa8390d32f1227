"""A Python tool for any task: before it answers, the policy may run programs and read their output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ecrl.envs.arguments import check_integer, check_types
from ecrl.envs.async_steps import is_concurrent, resolved
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.safe_calls import make
from ecrl.envs.sandbox import Limits, Outcome, make_sandbox
from ecrl.errors import UsageError

_OPEN, _CLOSE = "<python>", "</python>"
_MANUAL = "To run Python, write <python>your program</python> and stop; you will be shown what it prints.\n"
_ENDINGS = {
    "timeout": "[stopped: time limit]",
    "output": "[stopped: too much output]",
}


class PythonToolEnv(ReasoningEnv):
    """Another environment's problems, with a sandboxed Python interpreter to solve them.

    A response with ``<python>…</python>`` is a call: the program in its last pair of tags runs in a new
    sandbox, and the next observation is ``<output>…</output>``. The first response without a call is the
    answer, which the other environment scores. A call beyond the last turn ends the episode as truncated,
    with reward 0.

    Args:
        env: id of the other environment, which must be a single-turn `ReasoningEnv`.
        env_kwargs: arguments of the other environment.
        turns: most calls in an episode, 1 to 32.
        max_output: most characters of output that the policy sees, at least 16; the middle is left out.
        time_limit: seconds for each call.
        memory_limit: MiB for each call.
        sandbox: ``bubblewrap``, ``rlimit`` (weak) or ``http``.
        sandbox_url: the server, for ``http``.
        python: the interpreter for programs; None is the one in use.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is wrong, or the sandbox does not work on this machine.
    """

    def __init__(
        self,
        *,
        env: str = "ecrl/Arithmetic-v0",
        env_kwargs: Mapping[str, Any] | None = None,
        turns: int = 4,
        max_output: int = 2000,
        time_limit: float = 5.0,
        memory_limit: int = 256,
        sandbox: str = "bubblewrap",
        sandbox_url: str | None = None,
        python: str | None = None,
        split: Split = "train",
    ) -> None:
        check_types(PythonToolEnv.__init__, locals())
        super().__init__(split=split)
        check_integer("turns", turns, 1, 32)
        check_integer("max_output", max_output, 16, 1 << 15)
        self.limits = Limits(time_limit, memory_limit)
        task = make(env, split, env_kwargs or {}).unwrapped
        if not isinstance(task, ReasoningEnv):
            raise UsageError(f"env={env!r} must be a ReasoningEnv; it is a {type(task).__name__}.")
        self.task = task
        self.concurrent = is_concurrent(task)
        self.turns = turns
        self.max_output = max_output
        self._sandbox = make_sandbox(sandbox, python=python, url=sandbox_url)
        self._calls = 0
        self._errors = 0

    @property
    def problem_indices(self) -> NDArray[np.int64] | None:
        """Those of the other environment."""
        return self.task.problem_indices

    @property
    def problem_keys(self) -> NDArray[np.uint64] | None:
        """Those of the other environment."""
        return self.task.problem_keys

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a problem of the other environment; a line on how to run Python comes before its prompt."""
        gym.Env.reset(self, seed=seed)
        prompt, info = self.task.reset(seed=int(self.np_random.integers(1 << 31)), options=options)
        self._problem = info["problem"]
        self._calls = self._errors = 0
        if messages := info.get("messages"):
            *before, last = messages
            info = {**info, "messages": [*before, {**last, "content": _MANUAL + last["content"]}]}
        return _MANUAL + prompt, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Run the call in ``action`` and show its output, or score the answer and end."""
        call = _last_call(action)
        if call is not None and self._calls < self.turns:
            return self._run(call), 0.0, False, False, {}
        score = self.score(self.problem, action)
        metrics = {**score.metrics, "tool_calls": float(self._calls), "tool_errors": float(self._errors)}
        if call is not None:
            return "", 0.0, False, True, {"metrics": metrics, "answer": None}
        return "", score.reward, True, False, {"metrics": metrics, "answer": score.answer}

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a problem of the other environment, of either split."""
        return self.task.sample_problem(rng)

    def score(self, problem: Problem, response: str) -> Score:
        """Score an answer as the other environment does."""
        return resolved(self.task.score(problem, response))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Answer without a call, as the other environment's solutions do."""
        return self.task.solution(problem, rng, correct)

    def gold(self, problem: Problem) -> str | None:
        """Tell the answer as the other environment does."""
        return self.task.gold(problem)

    def same_answer(self, problem: Problem, one: str, other: str) -> bool:
        """Compare answers as the other environment does."""
        return self.task.same_answer(problem, one, other)

    def _run(self, program: str) -> str:
        self._calls += 1
        outcome = self._sandbox.run(program, limits=self.limits)
        self._errors += outcome.status != "ok"
        return f"\n<output>\n{_shorten(_report(outcome), self.max_output)}\n</output>\n"


def _last_call(response: str) -> str | None:
    end = response.rfind(_CLOSE)
    start = response.rfind(_OPEN, 0, max(end, 0))
    return None if start < 0 else response[start + len(_OPEN) : end]


def _report(outcome: Outcome) -> str:
    """Return what a terminal would show, with only the last line of a traceback."""
    lines = [outcome.stdout.rstrip("\n")]
    if outcome.status == "error":
        lines += outcome.stderr.strip().split("\n")[-1:]
    else:
        lines += [_ENDINGS[outcome.status]] if outcome.status in _ENDINGS else []
    return "\n".join(line for line in lines if line)


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
