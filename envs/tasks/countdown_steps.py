"""Countdown with its steps written out, so that a response is a chain of reasoning."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ecrl.envs.arguments import check_operators
from ecrl.envs.base import Problem, Score, Split
from ecrl.envs.tasks.countdown import CountdownEnv, Goal, expression_of, random_expression
from ecrl.envs.tasks.instructions import ask, final_answer

_STEP = re.compile(r"(-?[0-9]+)([-+*])(-?[0-9]+)=(-?[0-9]+)", re.ASCII)
_RESULT = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
_MAX_RESPONSE = 256


class CountdownStepsEnv(CountdownEnv):
    """Reach a target step by step: each step joins two of the numbers that are left into one.

    A prompt is ``3 5 7 = 22``, a right response ``3*5=15 7+15=22``; white space or a comma stands between
    steps. A step takes two of the numbers that are left, and its result takes their place; the last step
    leaves the target alone. Most problems have several solutions, each in several orders, so that the policy
    has to choose; one wrong result of a step spoils the response. Results may be negative.

    Args:
        numbers: how many numbers a problem has, 2 to 6; a response has one step fewer.
        low: smallest number, at least 1.
        high: largest number, at most 1,000,000.
        operators: some of ``+-*``.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        numbers: int = 4,
        low: int = 1,
        high: int = 9,
        operators: str = "+-*",
        split: Split = "train",
    ) -> None:
        check_operators(operators, "+-*")
        super().__init__(numbers=numbers, low=low, high=high, operators=operators, split=split)

    def _asked(self, numbers: Sequence[int], target: int) -> list[dict[str, str]]:
        task = (
            f"Make {target} from the numbers {', '.join(map(str, numbers))}, step by step: each step joins "
            f"two of the numbers that are left by one of {' '.join(self.operators)}, and its result takes "
            "their place."
        )
        return ask(task, "all steps, such as 1+2=3, 3*3=9,")

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 for right steps that use every number once and end at the target."""
        goal: Goal = problem.answer
        try:
            value = follow(final_answer(response), goal.numbers, self.operators)
        except ValueError:
            return Score(0.0, {"valid": 0.0})
        return Score(float(value == goal.target), {"valid": 1.0}, str(value))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write the steps of a random expression; if ``correct``, of one that reaches the target."""
        goal: Goal = problem.answer
        if correct:
            expression = expression_of(goal.target, goal.numbers, self.operators, rng)
        else:
            expression = random_expression(goal.numbers, self.operators, rng)
        return " ".join(expression.steps)


def follow(text: str, numbers: Sequence[int], operators: str) -> int:
    """Return the number that is left after the steps of ``text``.

    Raises:
        ValueError: the text is too long or is not such steps, a step takes a number that is not left or has a
            wrong result, or more than one number is left.
    """
    if len(text) > _MAX_RESPONSE:
        raise ValueError(f"longer than {_MAX_RESPONSE} characters")
    left = [str(number) for number in numbers]
    for step in text.replace(",", " ").split():
        match = _STEP.fullmatch(step)
        if match is None or match[2] not in operators:
            raise ValueError(f"no step: {step!r}")
        a, operator, b, result = match.groups()
        # Numbers are compared as they are written: `03` is not the given 3.
        left.remove(a)
        left.remove(b)
        if str(_RESULT[operator](int(a), int(b))) != result:
            raise ValueError(f"wrong result: {step!r}")
        left.append(result)
    (value,) = left
    return int(value)
