"""Mathematical problems from a file or a data set, graded by the value of the final answer."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from ecrl.envs.arguments import check_seconds, check_types
from ecrl.envs.base import Problem, Score
from ecrl.envs.datasets.cells import conversation, joined, read_cell
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows_env import RowsEnv
from ecrl.envs.grading import Verdict, extract, grade
from ecrl.envs.grading.equivalence import equivalent
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierTimeoutError, shared_pool
from ecrl.errors import UsageError

BOXED = "{problem}\n\nPut your final answer within \\boxed{{}}."


class MathEnv(RowsEnv):
    """Answer a problem of a data set; the final answer counts, however it is written.

    The reward is 1 if the answer equals the gold one, 0 otherwise; see `ecrl.envs.grading`. Grading runs in
    the verifier pool: a grading that takes too long or too much memory scores 0 and is counted.

    Args:
        problem_column: string or chat messages; ``prompt.0.content`` reaches into nested values.
        answer_column: the gold answer, or a worked solution from which `extract` takes the answer.
        template: the prompt, or the last message of a conversation, with ``{problem}`` in it.
        tolerance: relative tolerance, used if the gold answer is a decimal number.
        time_limit: seconds to grade one response.
        **rows: which rows to take; see `RowsEnv`.

    Raises:
        UsageError: the rows cannot be read or make no problems, the template has no ``{problem}``, or a limit
            or tolerance is out of range.
    """

    def __init__(
        self,
        *,
        problem_column: str = "problem",
        answer_column: str = "answer",
        template: str = BOXED,
        tolerance: float = 1e-6,
        time_limit: float = 5.0,
        **rows: Any,
    ) -> None:
        check_types(MathEnv.__init__, locals())
        check_seconds("time_limit", time_limit)
        if not 0 <= tolerance < 1:
            raise UsageError(f"tolerance must be a number of at least 0 and below 1; got {tolerance!r}.")
        _check_template(template)
        self.problem_column = problem_column
        self.answer_column = answer_column
        self.template = template
        self.tolerance = tolerance
        self.time_limit: float = time_limit
        super().__init__([problem_column, answer_column], **rows)

    def problem_of(self, row: Row) -> Problem:
        """Put the row's problem, or its last message, into the template, and read its gold answer.

        Raises:
            ValueError: one of them cannot be read; names the column and the value found.
        """
        messages = read_cell(row, self.problem_column, conversation)
        answer = read_cell(row, self.answer_column, gold)
        key, last = joined(messages), messages[-1]
        messages[-1] = {**last, "content": self.template.format(problem=last["content"])}
        return Problem(joined(messages), answer, key, messages)

    def score(self, problem: Problem, response: str) -> Score:
        """Grade the final answer."""
        metrics = {"answered": 0.0, "timeout": 0.0, "crash": 0.0}
        verdict = Verdict(False, None)
        try:
            verdict = self._judge(problem.answer, response)
        except VerifierTimeoutError:
            metrics["timeout"] = 1.0
        except (VerifierCrashError, MemoryError, RecursionError):
            metrics["crash"] = 1.0
        metrics["answered"] = float(verdict.answer is not None)
        return Score(float(verdict.correct), metrics, verdict.answer)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Box the gold answer, or that of another row."""
        if correct:
            return f"The answer is \\boxed{{{problem.answer}}}."
        return f"The answer is \\boxed{{{self.sample_problem(rng).answer}}}."

    def same_answer(self, problem: Problem, one: str, other: str) -> bool:
        """Whether the grader takes one for the other; False where it does not come to a verdict."""
        try:
            same: bool = shared_pool().run(equivalent, one, other, self.tolerance, timeout=self.time_limit)
        except (VerifierTimeoutError, VerifierCrashError, MemoryError, RecursionError):
            return False
        return same

    def _judge(self, answer: str, response: str) -> Verdict:
        verdict: Verdict = shared_pool().run(grade, answer, response, self.tolerance, timeout=self.time_limit)
        return verdict


def _check_template(template: str) -> None:
    try:
        filled = template.format(problem="\0")
    except (LookupError, ValueError):
        filled = ""
    if "\0" not in filled:
        raise UsageError(f"template needs {{problem}}, and {{{{ for a brace; got {template!r}.")


def gold(value: Any) -> str:
    """Return a gold answer as a string.

    Args:
        value: a number, a string, a worked solution, or a list, whose first item counts.

    Raises:
        ValueError: it holds no answer.
    """
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    # To Python, True and infinity are numbers; neither is an answer.
    if isinstance(first, bool) or not isinstance(first, (str, int, float)) or first in (inf, -inf):
        raise ValueError(f"an answer must be a text, a number or a list of them; found {value!r:.80}")
    text = str(first).strip()
    found = extract(text) if "\\boxed" in text or "####" in text else text
    answer = (found or "").strip().strip("$")
    if not answer.strip():
        raise ValueError(f"no answer can be found in {text[-80:]!r}")
    return answer
