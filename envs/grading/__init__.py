"""Grading of mathematical answers: extraction by rules, equivalence by structure and sympy."""

from __future__ import annotations

from dataclasses import dataclass

from ecrl.envs.grading.equivalence import equivalent
from ecrl.envs.grading.extraction import extract

__all__ = ["Verdict", "equivalent", "extract", "grade"]

_LONGEST_RESPONSE = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """The result of grading.

    Attributes:
        correct: whether the answer is the gold one.
        answer: what the response answers, as written; None if it answers nothing.
    """

    correct: bool
    answer: str | None


def grade(gold: str, response: str, tolerance: float = 1e-6) -> Verdict:
    """Judge a response. Never raises for its content; give it a deadline and a memory limit all the same.

    Args:
        gold: the right answer, plain or LaTeX, without a box.
        response: any text at all.
        tolerance: relative, where the gold answer is a decimal number.
    """
    answer = extract(response[-_LONGEST_RESPONSE:])
    if answer is None:
        return Verdict(False, None)
    return Verdict(equivalent(gold, answer, tolerance), answer)
