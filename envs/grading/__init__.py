"""Grades mathematical answers: rules extract the answer; structure and sympy decide whether it is right."""

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
        correct: whether the answer equals the gold answer.
        answer: the answer as the response writes it; None if it gives none.
    """

    correct: bool
    answer: str | None


def grade(gold: str, response: str, tolerance: float = 1e-6) -> Verdict:
    """Grade a response. No response makes it raise; call it with limits on time and memory nevertheless.

    Args:
        gold: the right answer, plain or LaTeX, without a box.
        response: any text at all.
        tolerance: relative tolerance, used if the gold answer is a decimal number.
    """
    answer = extract(response[-_LONGEST_RESPONSE:])
    if answer is None:
        return Verdict(False, None)
    return Verdict(equivalent(gold, answer, tolerance), answer)


#: One pair of each form that sympy compares. Its LaTeX parser is slow when it first meets a form.
_FORMS = (
    ("\\frac{\\sqrt{3}}{2}", "\\dfrac{3}{2\\sqrt{3}}"),
    ("2x^2 - 3x + 1", "(2x-1)(x-1)"),
    ("\\left(-\\infty, \\frac{1}{2}\\right]", "(-\\infty, 0.5]"),
    ("\\{1, 2, \\sqrt{2}\\}", "\\{\\sqrt2, 2, 1\\}"),
    ("\\begin{pmatrix} 1 & x \\\\ 0 & 1 \\end{pmatrix}", "\\begin{pmatrix} 1 & x \\\\ 0 & 2 \\end{pmatrix}"),
    ("3 + 4i", "4i + 3"),
    ("\\log_2 8 + e^{i\\pi}", "\\ln(e^2)"),
    ("\\sin(\\pi/6) + \\binom{5}{2}", "10.5"),
    ("x = 5!", "120 \\text{ cm}"),
    ("\\frac{a}{b} \\cdot c^{n+1}", "a c^{n+1} / b"),
    ("1 \\pm \\sqrt{5}", "1 - \\sqrt{5}"),
    ("\\binom{n}{2}", "\\frac{n(n-1)}{2}"),
    ("\\lfloor \\frac{n}{2} \\rfloor", "\\lfloor n/2 \\rfloor"),
)


def warm_up() -> None:
    """Grade one answer of each form, so that a process forked afterwards is fast from its first answer."""
    for gold, answer in _FORMS:
        grade(gold, f"\\boxed{{{answer}}}")
