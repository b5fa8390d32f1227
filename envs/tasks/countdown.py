"""Countdown: reach a target with the given numbers, each used exactly once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, product
from typing import NamedTuple

import numpy as np

from ecrl.envs.arguments import check_integer, check_operators
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer
from ecrl.errors import UsageError

Number = int | Fraction

_DIGITS = "0123456789"
_PRECEDENCE = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}
_LEAF = 3
# ASCII numbers, or any other single character except ASCII white space.
_TOKEN = re.compile(r"[0-9]+|\S", re.ASCII)
_MAX_RESPONSE = 256
_MAX_DRAWS = 1000


class Goal(NamedTuple):
    """What a response has to do: reach ``target`` with each of ``numbers`` (sorted) used once."""

    numbers: tuple[int, ...]
    target: int


class Expression(NamedTuple):
    """An expression: ``text`` as it is written, the steps that compute it in order, and what it is worth."""

    text: str
    value: Number
    precedence: int
    steps: tuple[str, ...] = ()


class CountdownEnv(ReasoningEnv):
    """Reach a target with the given numbers, each used exactly once.

    A prompt is ``3 5 7 = 22``, a right response ``3*5+7``. A response is one expression of the given
    numbers, the operators, parentheses and spaces, and nothing else. Targets are positive integers and come
    from a random expression, so every problem has a solution. Intermediate results may be negative or
    fractions.

    Args:
        numbers: how many numbers a problem has, 2 to 6.
        low: smallest number, at least 1.
        high: largest number, at most 1,000,000.
        operators: some of ``+-*/``; division is exact.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        numbers: int = 3,
        low: int = 1,
        high: int = 9,
        operators: str = "+-*",
        split: Split = "train",
    ) -> None:
        super().__init__(split=split)
        check_integer("numbers", numbers, 2, 6)
        check_integer("high", high, 1, 1_000_000)
        check_integer("low", low, 1, high)
        check_operators(operators, "+-*/")
        self.numbers = numbers
        self.low = low
        self.high = high
        self.operators = operators

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw numbers; the target is the value of a random expression of them.

        Raises:
            UsageError: with these settings hardly any expression has a positive integer value.
        """
        for _ in range(_MAX_DRAWS):
            numbers = rng.integers(self.low, self.high + 1, self.numbers).tolist()
            value = random_expression(numbers, self.operators, rng).value
            if value > 0 and value.denominator == 1:
                goal = Goal(tuple(sorted(numbers)), int(value))
                key = _prompt(goal.numbers, goal.target)
                return Problem(_prompt(numbers, goal.target), goal, key, self._asked(numbers, goal.target))
        raise UsageError(
            f"Countdown found no positive integer target in {_MAX_DRAWS} draws of {self.numbers} numbers "
            f"from {self.low} to {self.high} with operators {self.operators!r}. Add operators or numbers."
        )

    def _asked(self, numbers: Sequence[int], target: int) -> list[dict[str, str]]:
        task = (
            f"Make {target} from the numbers {', '.join(map(str, numbers))}: use each exactly once, with the "
            f"operators {' '.join(self.operators)} and parentheses."
        )
        return ask(task, "the expression alone, such as (1+2)*3,")

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 for an expression that uses every number once and is exactly equal to the target."""
        goal: Goal = problem.answer
        try:
            value = evaluate(final_answer(response), goal.numbers, self.operators)
        except (ValueError, ZeroDivisionError):
            return Score(0.0, {"valid": 0.0})
        return Score(float(value == goal.target), {"valid": 1.0}, str(value))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write a random expression of the numbers; if ``correct``, one that reaches the target.

        The search for all right expressions takes microseconds for 3 numbers, milliseconds for 4, a tenth of
        a second for 5 and seconds for 6. Drawing and scoring problems is fast for any count.
        """
        goal: Goal = problem.answer
        if correct:
            return expression_of(goal.target, goal.numbers, self.operators, rng).text
        return random_expression(goal.numbers, self.operators, rng).text


def evaluate(text: str, numbers: Sequence[int], operators: str) -> Number:
    """Return the exact value of an expression that uses each of ``numbers`` once.

    The numbers are checked before anything is computed, so that no text can make it slow.

    Raises:
        ValueError: the text is too long, is not such an expression, or uses other numbers.
        ZeroDivisionError: the expression divides by zero.
    """
    if len(text) > _MAX_RESPONSE:
        raise ValueError(f"longer than {_MAX_RESPONSE} characters")
    tokens = _TOKEN.findall(text)
    # Compared as strings: `03` is not the given 3.
    if sorted(t for t in tokens if t[0] in _DIGITS) != sorted(map(str, numbers)):
        raise ValueError("other numbers than the given ones")
    return _value(tokens, operators)


def _value(tokens: Sequence[str], operators: str) -> Number:
    """Evaluate infix tokens with two stacks (Dijkstra's shunting yard), without recursion."""
    values: list[Number] = []
    pending: list[str] = []

    def reduce(precedence: int) -> None:
        while pending and _PRECEDENCE[pending[-1]] >= precedence:
            right = values.pop()
            values.append(_apply(pending.pop(), values.pop(), right))

    operand_next = True
    for token in tokens:
        if operand_next and token[0] in _DIGITS:
            values.append(int(token))
            operand_next = False
        elif operand_next and token == "(":
            pending.append(token)
        elif not operand_next and token in operators:
            reduce(_PRECEDENCE[token])
            pending.append(token)
            operand_next = True
        elif not operand_next and token == ")":
            reduce(1)
            if not pending:
                raise ValueError("unmatched )")
            pending.pop()
        else:
            raise ValueError(f"unexpected {token!r}")
    if operand_next:
        raise ValueError("ends where an operand should be")
    reduce(1)
    if pending:
        raise ValueError("unmatched (")
    return values.pop()


def _apply(operator: str, left: Number, right: Number) -> Number:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return Fraction(left, right)


def _join(operator: str, left: Expression, right: Expression) -> Expression:
    """Combine two expressions, with parentheses only if they change the value."""
    level = _PRECEDENCE[operator]
    first = f"({left.text})" if left.precedence < level else left.text
    loose = right.precedence < level or (right.precedence == level and operator in "-/")
    second = f"({right.text})" if loose else right.text
    value = _apply(operator, left.value, right.value)
    steps = (*left.steps, *right.steps, f"{left.value}{operator}{right.value}={value}")
    return Expression(first + operator + second, value, level, steps)


def _leaf(number: int) -> Expression:
    return Expression(str(number), number, _LEAF)


def random_expression(numbers: Sequence[int], operators: str, rng: np.random.Generator) -> Expression:
    """Join random pairs by random operators until one expression is left; never divide by zero."""
    while True:
        parts = [_leaf(number) for number in numbers]
        draws = rng.random(3 * len(parts) - 3).tolist()
        try:
            while len(parts) > 1:
                left = parts.pop(int(draws.pop() * len(parts)))
                right = parts.pop(int(draws.pop() * len(parts)))
                parts.append(_join(operators[int(draws.pop() * len(operators))], left, right))
            return parts[0]
        except ZeroDivisionError:
            continue


class _Way(NamedTuple):
    """One way to reach a value: ``left operator right``, where each side uses its part of the numbers.

    ``trees`` is the number of expression trees with these two sides.
    """

    left: Number
    left_numbers: tuple[int, ...]
    operator: str
    right: Number
    right_numbers: tuple[int, ...]
    trees: int


def expression_of(
    target: Number, numbers: tuple[int, ...], operators: str, rng: np.random.Generator
) -> Expression:
    """Draw uniformly from the expression trees of ``numbers`` (sorted) that reach ``target``."""
    if len(numbers) == 1:
        return _leaf(numbers[0])
    ways, cumulative = _ways_to(target, numbers, operators)
    way = ways[int(np.searchsorted(cumulative, rng.integers(cumulative[-1]), side="right"))]
    left = expression_of(way.left, way.left_numbers, operators, rng)
    right = expression_of(way.right, way.right_numbers, operators, rng)
    return _join(way.operator, left, right)


@lru_cache(maxsize=1 << 14)
def _ways_to(
    target: Number, numbers: tuple[int, ...], operators: str
) -> tuple[tuple[_Way, ...], tuple[int, ...]]:
    ways = tuple(way for value, way in _all_ways(numbers, operators) if value == target)
    return ways, tuple(accumulate(way.trees for way in ways))


@lru_cache(maxsize=1 << 10)
def _counts(numbers: tuple[int, ...], operators: str) -> dict[Number, int]:
    """Count the expression trees of ``numbers`` by their value."""
    if len(numbers) == 1:
        return {numbers[0]: 1}
    counts: dict[Number, int] = {}
    for value, way in _all_ways(numbers, operators):
        counts[value] = counts.get(value, 0) + way.trees
    return counts


def _all_ways(numbers: tuple[int, ...], operators: str) -> Iterator[tuple[Number, _Way]]:
    """Yield every possible last step of an expression of ``numbers``, with the value it reaches."""
    for sides in product((True, False), repeat=len(numbers)):
        if all(sides) or not any(sides):
            continue
        left_numbers = tuple(n for n, side in zip(numbers, sides, strict=True) if side)
        right_numbers = tuple(n for n, side in zip(numbers, sides, strict=True) if not side)
        lefts, rights = _counts(left_numbers, operators), _counts(right_numbers, operators)
        for (left, m), (right, n), operator in product(lefts.items(), rights.items(), operators):
            if operator != "/" or right != 0:
                way = _Way(left, left_numbers, operator, right, right_numbers, m * n)
                yield _apply(operator, left, right), way


def _prompt(numbers: Sequence[int], target: int) -> str:
    return f"{' '.join(map(str, numbers))} = {target}\n"
