"""Mathematical problems from a file or a data set, graded by the value of the final answer."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, ClassVar

import numpy as np

from ecrl.envs.arguments import check_types
from ecrl.envs.base import Problem, Score, Split, check_seconds
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows import BadRows, RowsEnv, prompt_text, read_cell
from ecrl.envs.grading import Verdict, extract, grade
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierTimeoutError, shared_pool
from ecrl.errors import UsageError

BOXED = "{problem}\n\nPut your final answer within \\boxed{{}}."


class MathEnv(RowsEnv):
    """Answer a problem of a data set; the final answer counts, however it is written.

    The reward is 1 if the answer equals the gold one, 0 otherwise; see `ecrl.envs.grading`. Grading runs in
    the verifier pool: one that takes too long or too much memory scores 0 and is counted.

    Args:
        path: a file, a local copy of a data set or a name on the hub; see `load_rows`.
        problem_column: text or chat messages; ``prompt.0.content`` reaches into nested values.
        answer_column: the gold answer; of a worked solution, what `extract` finds in it.
        template: the prompt, with ``{problem}`` in it.
        tolerance: relative, where the gold answer is a decimal number.
        time_limit: seconds to grade one response.
        val_path: rows of the validation split; see `RowsEnv`.
        where: rows to take, by the values of columns, e.g. ``{ability: math}``.
        subset: configuration of a data set.
        part: part of a data set that is the training split.
        val_part: part of a data set that is the validation split.
        bad_rows: ``refuse`` them, or ``skip`` them with a warning.
        split: ``train`` or ``val``.

    Raises:
        UsageError: rows that cannot be read or are no problems, a template without ``{problem}``, a limit or
            tolerance that is none.
    """

    concurrent: ClassVar[bool] = True

    def __init__(
        self,
        *,
        path: str | None = None,
        problem_column: str = "problem",
        answer_column: str = "answer",
        template: str = BOXED,
        tolerance: float = 1e-6,
        time_limit: float = 5.0,
        val_path: str | None = None,
        where: Mapping[str, Any] | None = None,
        subset: str | None = None,
        part: str | None = None,
        val_part: str | None = None,
        bad_rows: BadRows = "refuse",
        split: Split = "train",
    ) -> None:
        check_types(MathEnv.__init__, locals())
        check_seconds("time_limit", time_limit)
        if not 0 <= tolerance < 1:
            raise UsageError(f"tolerance must be a number of at least 0 and below 1; got {tolerance!r}.")
        try:
            filled = template.format(problem="\0")
        except (LookupError, ValueError):
            filled = ""
        if "\0" not in filled:
            raise UsageError(f"template needs {{problem}}, and {{{{ for a brace; got {template!r}.")
        self.problem_column = problem_column
        self.answer_column = answer_column
        self.template = template
        self.tolerance = tolerance
        self.time_limit = time_limit
        super().__init__(
            path,
            [problem_column, answer_column],
            val_path=val_path,
            where=where,
            subset=subset,
            part=part,
            val_part=val_part,
            bad_rows=bad_rows,
            split=split,
        )

    def problem_of(self, row: Row) -> Problem:
        """The row's problem in the template, and its gold answer.

        Raises:
            ValueError: one of them is none; names the column and what was found.
        """
        text = read_cell(row, self.problem_column, prompt_text)
        answer = read_cell(row, self.answer_column, gold)
        return Problem(self.template.format(problem=text), answer, text)

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

    def _judge(self, answer: str, response: str) -> Verdict:
        verdict: Verdict = shared_pool().run(grade, answer, response, self.tolerance, timeout=self.time_limit)
        return verdict


def gold(value: Any) -> str:
    """Return a gold answer as text: of a number, a text, a worked solution, or the first of a list.

    Raises:
        ValueError: there is none in it.
    """
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    # True is a number to Python, and no answer to anything; so is infinity.
    if isinstance(first, bool) or not isinstance(first, (str, int, float)) or first in (inf, -inf):
        raise ValueError(f"an answer must be a text, a number or a list of them; found {value!r:.80}")
    text = str(first).strip()
    found = extract(text) if "\\boxed" in text or "####" in text else text
    answer = (found or "").strip().strip("$")
    if not answer.strip():
        raise ValueError(f"no answer can be found in {text[-80:]!r}")
    return answer
