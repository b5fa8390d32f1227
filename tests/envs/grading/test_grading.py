"""The grader: its table, its rules in their order, and hostile answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecrl.envs.grading import equivalent, extract, grade
from ecrl.envs.verifiers.pool import VerifierPool
from tests.support import verifier_faults as faults
from tests.support.grading_hostile import HOSTILE
from tests.support.grading_table import PAIRS


def check(pairs: list[tuple[str, str, str, bool]]) -> None:
    """No wrong answer is accepted, and few right ones are refused."""
    wrong = [pair for pair in pairs if grade(pair[1], pair[2]).correct is not pair[3]]
    assert [pair for pair in wrong if not pair[3]] == []
    assert len(wrong) / len(pairs) <= 0.015, wrong


def test_the_grading_table() -> None:
    """Every eighth pair; the LaTeX parser is slow at each form that it first meets."""
    check(PAIRS[::8])


@pytest.mark.slow
def test_the_whole_grading_table() -> None:
    check(PAIRS)


@pytest.mark.parametrize(
    "answer", ["1/3", "\\sqrt{2}", "x+1", "\\{1,2\\}", "(1,2]", "\\text{No}", "50\\%", "7_8", "B"]
)
def test_every_answer_equals_itself_and_no_other(answer: str) -> None:
    assert equivalent(answer, answer)
    assert not equivalent(answer, "17")


def test_tolerance_is_for_decimal_gold_answers_only() -> None:
    assert equivalent("3.14159", "3.1415901", 1e-6) and not equivalent("3.14159", "3.1416", 1e-6)
    assert equivalent("3.14159", "3.1416", 1e-4)
    assert not equivalent("\\pi", "3.14159265", 1e-2) and not equivalent("3", "3.0000001", 1e-2)


def test_extraction_rules_in_their_order() -> None:
    assert extract("#### 1 \\boxed{2} the answer is 3") == "2"
    assert extract("#### 1\nthe answer is 3") == "1"
    assert extract("The answer is 3. I am sure.") == "3"
    assert extract("3") is None


@pytest.fixture(scope="module")
def pool() -> Any:
    made = VerifierPool(1, memory=500)
    made.run(grade, "\\sqrt{2}", "\\boxed{\\sqrt{3}}")  # sympy is loaded
    yield made
    made.close()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("right", ["5", "x^2+\\sqrt{2}"])
def test_hostile_answers_score_nothing_in_time_and_memory(name: str, right: str, pool: VerifierPool) -> None:
    wanted = name == "megabytes" and right == "5"  # a right answer at the end of a long text
    verdict, seconds = pool.run(faults.timed, grade, right, HOSTILE[name], timeout=120.0)
    assert verdict.correct is wanted
    assert seconds < 5  # of the worker's own: the machine may be busy
    assert not Path("/tmp/ecrl_was_here").exists()
