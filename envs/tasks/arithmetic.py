"""Arithmetic: evaluate an expression step by step."""

from __future__ import annotations

import re
from string import whitespace

import numpy as np

from ecrl.envs.arguments import check_integer, check_operators
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer

_TERM = re.compile(r"[0-9]+|[-+*]")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_MAX_SLIP = 9


class ArithmeticEnv(ReasoningEnv):
    """Evaluate an expression step by step.

    A prompt is ``3+4*2``, a right response ``4*2=8 3+8=11``. The text after the last ``=`` counts, or the
    whole response if it has no ``=``. It must be an integer in decimal notation, with spaces allowed around
    it.

    Args:
        steps: number of operators in the expression, 1 to 16.
        digits: number of digits of each operand, 1 to 9; operands are positive.
        operators: some of ``+-*``.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self, *, steps: int = 2, digits: int = 1, operators: str = "+-*", split: Split = "train"
    ) -> None:
        super().__init__(split=split)
        check_integer("steps", steps, 1, 16)
        check_integer("digits", digits, 1, 9)
        check_operators(operators, "+-*")
        self.steps = steps
        self.digits = digits
        self.operators = operators

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw operands and operators, each uniformly."""
        low = 10 ** (self.digits - 1)
        operands = rng.integers(low, 10 * low, self.steps + 1).tolist()
        operators = [self.operators[i] for i in rng.integers(len(self.operators), size=self.steps).tolist()]
        rest = (f"{operator}{operand}" for operator, operand in zip(operators, operands[1:], strict=True))
        prompt = f"{operands[0]}{''.join(rest)}\n"
        messages = ask(f"Compute {prompt.strip()}.", "the final integer")
        return Problem(prompt, str(_work(operands, operators)[-1][-1]), messages=messages)

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 if the final integer is exactly the value of the expression."""
        final = final_answer(response).rpartition("=")[2].strip(whitespace)
        # Compared as strings, because converting a long string of digits to an integer is slow.
        if not _INTEGER.fullmatch(final):
            return Score(0.0, {"valid": 0.0})
        return Score(float(final == problem.answer), {"valid": 1.0}, final)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write each step as ``a+b=c``, products first. A wrong solution has one wrong result and uses it."""
        terms = _TERM.findall(problem.prompt)
        operands, operators = [int(term) for term in terms[::2]], terms[1::2]
        if correct:
            steps = _work(operands, operators)
        else:
            slip = int(rng.integers(1, _MAX_SLIP + 1)) * (-1) ** int(rng.integers(2))
            steps = _work(operands, operators, int(rng.integers(len(operators))), slip)
        return " ".join(f"{left}{operator}{right}={result}" for left, operator, right, result in steps)


def _work(
    operands: list[int], operators: list[str], slip_at: int = -1, slip: int = 0
) -> list[tuple[int, str, int, int]]:
    """Evaluate an expression in the order of precedence, from the left.

    Args:
        operands: positive integers.
        operators: one fewer than operands.
        slip_at: index of the step that gets a wrong result; -1 for none.
        slip: error of that result, not 0. A product stays positive, because right operands always are.

    Returns:
        A tuple (left, operator, right, result) for each step.
    """
    operands, operators = operands.copy(), operators.copy()
    steps: list[tuple[int, str, int, int]] = []
    while operators:
        i = operators.index("*") if "*" in operators else 0
        left, right = operands[i : i + 2]
        operator = operators.pop(i)
        result = _apply(operator, left, right)
        if len(steps) == slip_at:
            result += abs(slip) if operator == "*" and result + slip <= 0 else slip
        operands[i : i + 2] = [result]
        steps.append((left, operator, right, result))
    return steps


def _apply(operator: str, left: int, right: int) -> int:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right
