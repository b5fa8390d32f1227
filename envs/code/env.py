"""Programming problems: the policy writes Python, and unit tests judge it in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ecrl.envs.arguments import check_types
from ecrl.envs.base import Problem, Score
from ecrl.envs.code.unit_test_parsing import read_entry, read_tests
from ecrl.envs.code.unit_tests import Tests
from ecrl.envs.datasets.cells import check_filled, in_column, read_cell, value_at
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows_env import RowsEnv
from ecrl.envs.sandbox import Limits, make_sandbox
from ecrl.errors import UsageError

Reward = Literal["all", "pass_rate"]

_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = {"", "py", "python", "python3"}
#: Text after the problem, which tells the policy the form of an answer.
INSTRUCTION = "\nAnswer with Python code in one ```python block.\n"


@dataclass(frozen=True)
class Task:
    """What `CodeEnv` needs to judge a program.

    Attributes:
        tests: the row's unit tests.
        preamble: code that runs before the program.
        reference: a program that passes the tests; None if the row has none.
    """

    tests: Tests
    preamble: tuple[str, ...]
    reference: str | None


class CodeEnv(RowsEnv):
    """Write a Python program; unit tests judge it in a sandbox.

    The program is the last fenced Python block of a response, or the whole response if there is none. With
    ``reward="all"`` it earns 1 if every test passes, otherwise 0; with ``pass_rate`` the share that passes.
    `read_tests` lists the forms of tests; the sandbox decides what a program may do.

    Args:
        problem_column: the text of the problem.
        tests_column: the tests; may name several columns.
        entry_column: the name of the function under test; None if the tests name it.
        starter_column: code that the prompt shows after the problem, such as a signature.
        preamble_column: code that runs before the program, such as imports.
        solution_column: a program that passes the tests, for warm starts.
        preamble: code that runs before every program.
        instruction: text after the problem in the prompt.
        reward: ``all`` or ``pass_rate``.
        time_limit: seconds for each run: for one input, or for all calls of a row together.
        memory_limit: MiB of address space for each process.
        sandbox: ``bubblewrap``, ``rlimit`` (weak) or ``http``.
        sandbox_url: the server, for ``http``.
        python: the interpreter for programs; None is the one in use.
        **rows: which rows to take; see `RowsEnv`.

    Raises:
        UsageError: an argument is wrong, the rows cannot be read, or the sandbox does not work here.
    """

    #: Reading the tests of a row takes up to a millisecond.
    rows_tried: ClassVar[int] = 20_000

    def __init__(
        self,
        *,
        problem_column: str = "problem",
        tests_column: str | Sequence[str] = "tests",
        entry_column: str | None = None,
        starter_column: str | None = None,
        preamble_column: str | None = None,
        solution_column: str | None = None,
        preamble: str = "",
        instruction: str = INSTRUCTION,
        reward: Reward = "all",
        time_limit: float = 5.0,
        memory_limit: int = 256,
        sandbox: str = "bubblewrap",
        sandbox_url: str | None = None,
        python: str | None = None,
        **rows: Any,
    ) -> None:
        check_types(CodeEnv.__init__, locals())
        if not tests_column:
            raise UsageError(f"tests_column must name a column or several; got {tests_column!r}.")
        self.problem_column = problem_column
        self.tests_columns = (tests_column,) if isinstance(tests_column, str) else tuple(tests_column)
        self.entry_column = entry_column
        self.starter_column = starter_column
        self.preamble_column = preamble_column
        self.solution_column = solution_column
        self.preamble = preamble
        self.instruction = instruction
        self.reward = reward
        self.limits = Limits(time_limit, memory_limit)
        super().__init__([problem_column, *self.tests_columns], **rows)
        self.sandbox = make_sandbox(sandbox, python=python, url=sandbox_url)

    def problem_of(self, row: Row) -> Problem:
        """Read a row's problem and tests.

        Raises:
            ValueError: a cell cannot be read; names the column and the value found.
        """
        text = _text(row, self.problem_column)
        entry = read_cell(row, self.entry_column, read_entry) if self.entry_column else None
        cells = [value_at(row, column) for column in self.tests_columns]
        with in_column(*self.tests_columns):
            tests = read_tests(cells if len(cells) > 1 else cells[0], entry)
        starter = _text(row, self.starter_column)
        prompt = text + (f"\n```python\n{starter}\n```\n" if starter else "") + self.instruction
        if len(prompt) > self.max_prompt:
            raise ValueError(f"the prompt has {len(prompt)} characters; {self.max_prompt} are the most")
        preamble = tuple(filter(None, (self.preamble, _text(row, self.preamble_column))))
        reference = _text(row, self.solution_column) or None
        return Problem(prompt, Task(tests, preamble, reference), text)

    def key_of(self, row: Row) -> str:
        """Read the problem's text, without its tests."""
        check_filled(row, self.problem_column)
        return _text(row, self.problem_column)

    def score(self, problem: Problem, response: str) -> Score:
        """Run the program in a response against the tests."""
        task: Task = problem.answer
        program = extract_program(response)
        verdict = task.tests.judge(
            self.sandbox, [*task.preamble, program], self.limits, stop=self.reward == "all"
        )
        solved = verdict.passed == verdict.total
        metrics = {"solved": float(solved), "timeout": float(verdict.status == "timeout")}
        metrics["error"] = float(verdict.status in ("error", "output"))
        return Score(float(solved) if self.reward == "all" else verdict.passed / verdict.total, metrics)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write the row's reference program, or one that does nothing.

        Raises:
            NotImplementedError: no ``solution_column`` is set.
        """
        task: Task = problem.answer
        if not task.reference:
            raise NotImplementedError(
                "CodeEnv writes solutions only if env.kwargs.solution_column names a column of programs."
            )
        return f"```python\n{task.reference if correct else 'pass'}\n```"


def extract_program(response: str) -> str:
    """Return the last fenced Python block, closed or not; the whole response if there is no fence."""
    blocks = [body for tag, body in _FENCE.findall(response) if tag.lower() in _PYTHON]
    return blocks[-1] if blocks else response


def _text(row: Row, column: str | None) -> str:
    value = value_at(row, column) if column else None
    if value is not None and not isinstance(value, str):
        raise ValueError(f"column {column!r}: a text was wanted; found {value!r:.80}")
    return value or ""
