"""The tasks of reasoning-gym; each has its own generator and its own scorer.

https://github.com/open-thought/reasoning-gym. The package is optional; it is imported when the first of its
tasks is made.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierTimeoutError, shared_pool
from ecrl.errors import EcrlError, UsageError, unknown_name

_INSTALL = "pip install 'ecrl[reasoning-gym]'"
_OPEN, _CLOSE = "<answer>", "</answer>"
_ASK = f"\nWrite the final answer as {_OPEN}answer{_CLOSE}.\n"
_SECONDS = 4.0  # time limit of scoring an answer, and of drawing an entry
_DRAWS = 20  # how many draws in a row may fail
_MAX_ANSWER = 100_000


class ReasoningGymEnv(ReasoningEnv):
    """A task of reasoning-gym, scored by the task's own scorer.

    The answer is the text between the last ``<answer>`` and ``</answer>``, or the whole response if there are
    no tags; an empty answer earns nothing. The reward is 1 if the scorer gives full marks. With
    ``exact=False`` it is the scorer's partial credit, of which many tasks give some to any text.

    Args:
        task: name of the task in reasoning-gym.
        level: level of the task's own curriculum, from 0; None takes the task's default settings.
        exact: give 1 for full marks and 0 for anything less; if False, give what the scorer gives.
        split: ``train`` or ``val``.
        **settings: fields of the task's configuration; they override those of the level.

    Raises:
        UsageError: reasoning-gym is not installed, the task, a setting or the level is unknown, or the task
            refuses its settings.
    """

    def __init__(
        self,
        *,
        task: str,
        level: int | None = None,
        exact: bool = True,
        split: Split = "train",
        **settings: Any,
    ) -> None:
        super().__init__(split=split)
        if task not in TASKS:
            raise unknown_name("reasoning-gym task", task, TASKS)
        if importlib.util.find_spec("reasoning_gym") is None:
            raise UsageError(f"reasoning_gym/{task} needs the package reasoning-gym: {_INSTALL}")
        if level is not None:
            check_integer("level", level, 0, 1000)
        try:
            text = json.dumps(settings, sort_keys=True)
        except TypeError as error:
            raise UsageError(f"reasoning_gym/{task}: settings must be plain data; {error}.") from None
        from ecrl.envs.reasoning_gym.tasks import Task, dataset, runs_programs

        self.task = Task(task, level, text)
        self.exact = exact
        dataset(self.task)
        self._runs_programs = runs_programs(self.task)

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw an entry of the task with a seed of its own."""
        from ecrl.envs.reasoning_gym.tasks import SEEDS

        entry = self._entry(int(rng.integers(SEEDS)))
        return Problem(f"{entry['question'].rstrip()}{_ASK}", entry)

    def score(self, problem: Problem, response: str) -> Score:
        """Return what the task's scorer gives, in [0, 1]; 0 if it raises, hangs or dies."""
        answer = extract(response)
        if not answer or len(answer) > _MAX_ANSWER:
            return Score(0.0, {"exact": 0.0, "failed": 0.0})
        try:
            reward = self._judge(problem.answer, answer)
        except (VerifierTimeoutError, VerifierCrashError):
            return Score(0.0, {"exact": 0.0, "failed": 1.0}, answer)
        full = float(reward == 1.0)
        return Score(full if self.exact else reward, {"exact": full, "failed": 0.0}, answer)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write the entry's answer; a wrong one is the answer of another entry.

        Raises:
            NotImplementedError: the task has no answer, only a scorer.
        """
        answer = problem.answer["answer"]
        if not correct:
            answer = self.sample_problem(rng).answer["answer"]
        if answer is None:
            raise NotImplementedError(f"reasoning_gym/{self.task.name} has no answers, only a scorer.")
        return f"{_OPEN}{answer}{_CLOSE}"

    def _entry(self, seed: int) -> dict[str, Any]:
        """Draw the entry of a seed; if its generator fails, as some do at times, take the next seed."""
        why = ""
        for following in range(seed, seed + _DRAWS):
            try:
                return self._draw_entry(following)
            except Exception as error:  # generators raise errors of any kind
                why = f"{type(error).__name__}: {error}"
        raise EcrlError(
            f"reasoning_gym/{self.task.name}: {_DRAWS} entries in a row could not be drawn ({why})."
        )

    def _draw_entry(self, seed: int) -> dict[str, Any]:
        from ecrl.envs.reasoning_gym.tasks import draw, draw_in_scratch

        if not self._runs_programs:
            return draw(self.task, seed)
        # In a worker, because these programs may write files, hang or crash.
        entry: dict[str, Any] = shared_pool().run(draw_in_scratch, self.task, seed, timeout=_SECONDS)
        return entry

    def _judge(self, entry: dict[str, Any], answer: str) -> float:
        from ecrl.envs.reasoning_gym.tasks import judge

        reward: float = shared_pool().run(judge, self.task, entry, answer, timeout=_SECONDS)
        return reward


def extract(response: str) -> str:
    """Return the answer in a response, without the white space around it."""
    _, found, rest = response.rpartition(_OPEN)
    inner, closed, _ = rest.partition(_CLOSE)
    return (inner if found and closed else response).strip()
