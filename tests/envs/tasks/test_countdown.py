"""Countdown: the verifier by hand and against Python's parser, problems that can be solved."""

from __future__ import annotations

import ast
import re
import warnings
from fractions import Fraction
from itertools import product
from operator import add, mul, sub, truediv
from typing import Any

import numpy as np
import pytest

from ecrl.envs.base import Problem, Score
from ecrl.envs.tasks.countdown import CountdownEnv, Goal, evaluate, random_expression
from ecrl.envs.tasks.countdown_steps import CountdownStepsEnv
from ecrl.errors import UsageError

GOAL = Problem("3 5 7 = 22\n", Goal((3, 5, 7), 22))


@pytest.mark.parametrize(
    ("response", "reward", "valid", "answer"),
    [
        ("3*5+7", 1, 1, "22"),
        ("7+5*3", 1, 1, "22"),
        ("(3*5)+7", 1, 1, "22"),
        (" 3 * 5 + 7\n", 1, 1, "22"),
        ("((7)+((5)*(3)))", 1, 1, "22"),
        ("3*(5+7)", 0, 1, "36"),
        ("3-5-7", 0, 1, "-9"),
        ("3-(5-7)", 0, 1, "5"),
        ("3*5", 0, 0, None),  # 7 is unused
        ("3*5+7+7", 0, 0, None),  # 7 is used twice
        ("3*5+7+3-3", 0, 0, None),
        ("22", 0, 0, None),
        ("15+7", 0, 0, None),
        ("35*7", 0, 0, None),
        ("3 5*7", 0, 0, None),  # a missing operator, not 35
        ("3*5+7=22", 0, 0, None),
        ("3*5+7 done", 0, 0, None),
        ("so 3*5+7", 0, 0, None),
        ("03*5+7", 0, 0, None),  # leading zero
        ("3*5+7.0", 0, 0, None),
        ("-3+5*7", 0, 0, None),  # no signs
        ("3*5+-7", 0, 0, None),
        ("3**5+7", 0, 0, None),
        ("3*/5+7", 0, 0, None),
        ("3*5+7)", 0, 0, None),
        ("(3*5+7", 0, 0, None),
        (")3*5+7(", 0, 0, None),
        ("3()*5+7", 0, 0, None),
        ("()3*5+7", 0, 0, None),
        ("3(5)7", 0, 0, None),
        ("3*5+7+", 0, 0, None),
        ("", 0, 0, None),
        ("３*５+７", 0, 0, None),  # full-width digits
        ("3*5+٧", 0, 0, None),
        ("3*5+7²", 0, 0, None),
        ("3*5\u00a0+7", 0, 0, None),  # no ASCII white space
        ("3/5+7", 0, 0, None),  # not among the operators
        ("3*5+7" + " " * 300, 0, 0, None),  # too long
    ],
)
def test_countdown_by_hand(response: str, reward: float, valid: float, answer: str | None) -> None:
    score = CountdownEnv().score(GOAL, response)
    assert score == Score(reward, {"valid": valid}, answer)


@pytest.mark.parametrize(
    ("text", "numbers", "value"),
    [
        ("8/(3-8/3)", (3, 3, 8, 8), Fraction(24)),  # 24 only by fractions
        ("1/3", (1, 3), Fraction(1, 3)),
        ("2/6*9", (2, 6, 9), Fraction(3)),
        ("2/(6*9)", (2, 6, 9), Fraction(1, 27)),
        ("999999*999999", (999_999, 999_999), 999_998_000_001),
        ("8-4-2", (2, 4, 8), 2),
        ("8/4/2", (2, 4, 8), Fraction(1)),
    ],
)
def test_evaluate_is_exact(text: str, numbers: tuple[int, ...], value: Fraction) -> None:
    assert evaluate(text, numbers, "+-*/") == value


def test_division_by_zero_scores_nothing() -> None:
    env = CountdownEnv(operators="+-*/")
    problem = Problem("5 5 1 = 1\n", Goal((1, 5, 5), 1))
    assert env.score(problem, "1/(5-5)") == Score(0.0, {"valid": 0.0})
    assert env.score(problem, "1*5/5") == Score(1.0, {"valid": 1.0}, "1")
    assert env.score(problem, "1/5/5") == Score(0.0, {"valid": 1.0}, "1/25")


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"numbers": 2, "operators": "-"},
        {"numbers": 4, "operators": "+-*/"},
        {"numbers": 3, "high": 1_000_000, "operators": "*/"},
        {"numbers": 3, "operators": "/"},
        {"numbers": 5, "low": 7, "operators": "-+"},
    ],
)
def test_countdown_problems_are_solvable(kwargs: dict[str, Any]) -> None:
    env, rng = CountdownEnv(**kwargs), np.random.default_rng(0)
    for problem in (env.sample_problem(rng) for _ in range(50)):
        goal: Goal = problem.answer
        assert goal.target >= 1
        numbers, _, target = problem.prompt.partition(" = ")
        assert sorted(map(int, numbers.split())) == list(goal.numbers)
        assert target == f"{goal.target}\n"
        assert problem.key == f"{' '.join(map(str, goal.numbers))} = {goal.target}\n"
        assert env.score(problem, env.solution(problem, rng)).reward == 1.0


def test_countdown_solutions_are_all_found_equally_often() -> None:
    env, rng = CountdownEnv(), np.random.default_rng(0)
    found = [env.solution(GOAL, rng) for _ in range(800)]
    # 22 = 3·5 + 7 alone: both orders of the sum times both of the product.
    assert set(found) == {"3*5+7", "5*3+7", "7+3*5", "7+5*3"}
    assert all(150 < found.count(text) < 250 for text in set(found))
    # 9 over 2, 2, 5: 12 trees of two sums and 4 of a product and a sum.
    found = [env.solution(Problem("", Goal((2, 2, 5), 9)), rng) for _ in range(2000)]
    assert 430 < sum("*" in text for text in found) < 570


def test_countdown_writes_only_the_parentheses_it_needs() -> None:
    rng, numbers = np.random.default_rng(0), (2, 3, 4)
    drawn = [random_expression(numbers, "+-*/", rng) for _ in range(3000)]
    texts = {expression.text for expression in drawn}
    assert {"2+3+4", "2*3*4", "2-(3-4)", "2-(3+4)", "2-3-4", "(2+3)*4", "2/(3/4)", "2*3/4"} <= texts
    assert not {"(2+3)+4", "2+(3-4)", "(2-3)-4", "(2*3)+4", "2*(3/4)"} & texts
    assert all(evaluate(expression.text, numbers, "+-*/") == expression.value for expression in drawn)


def _by_python(text: str) -> Fraction | None:
    """What Python's own parser makes of an expression; None where it goes beyond Countdown's grammar."""

    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant(int(number)):
                return Fraction(number)
            case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as operator, right):
                functions = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv}
                result: Fraction = functions[type(operator)](value(left), value(right))
                return result
        raise SyntaxError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # `1(2)` is "perhaps a missing comma"
            return value(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return None


def test_countdown_reads_as_python_does() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(tokens) for length in range(6) for tokens in product("12+-*/()", repeat=length)]
    texts += ["".join(rng.permutation(list("1122+-*/()()")[: rng.integers(6, 13)])) for _ in range(5000)]
    agreed = 0
    for text in texts:
        if sorted(re.findall("[0-9]+", text)) not in (["1", "2"], ["1", "1", "2", "2"]):
            continue
        numbers = tuple(map(int, re.findall("[0-9]", text)))
        try:
            value: Any = evaluate(text, numbers, "+-*/")
        except ValueError:
            value = None
        except ZeroDivisionError:
            with pytest.raises(ZeroDivisionError):
                _by_python(text)
            continue
        assert value == _by_python(text), text
        agreed += value is not None
    assert agreed > 50


def test_countdown_without_any_target_says_so() -> None:
    env = CountdownEnv(numbers=2, low=9, high=9, operators="-")
    with pytest.raises(UsageError, match="no positive integer target"):
        env.sample_problem(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("response", "reward", "valid", "answer"),
    [
        ("3*5=15 15+7=22", 1, 1, "22"),
        ("5*3=15, 7+15=22\n", 1, 1, "22"),
        ("3*5=15\n15+7=22", 1, 1, "22"),
        ("3-5=-2 7--2=9", 0, 1, "9"),
        ("3-5=-2 -2*7=-14", 0, 1, "-14"),
        ("15+7=22", 0, 0, None),  # 15 is not there yet
        ("3*5=15", 0, 0, None),  # 7 is left
        ("3*5=15 15+7=22 22+0=22", 0, 0, None),
        ("3*5=16 16+7=23", 0, 0, None),  # wrong results
        ("3*5=15 15+7=23", 0, 0, None),
        ("3*5=15 3+7=10", 0, 0, None),  # 3 is used up
        ("03*5=15 15+7=22", 0, 0, None),
        ("3*5=015 15+7=22", 0, 0, None),
        ("3*5=15 15+7", 0, 0, None),
        ("3*5+7=22", 0, 0, None),
        ("3*5=15 so 15+7=22", 0, 0, None),
        ("3/5=0 0+7=7", 0, 0, None),
        ("３*5=15 15+7=22", 0, 0, None),
        ("", 0, 0, None),
        ("3*5=15 15+7=22" + " " * 300, 0, 0, None),
    ],
)
def test_steps_by_hand(response: str, reward: float, valid: float, answer: str | None) -> None:
    assert CountdownStepsEnv().score(GOAL, response) == Score(reward, {"valid": valid}, answer)


def test_steps_take_no_number_twice() -> None:
    problem = Problem("2 2 5 = 9\n", Goal((2, 2, 5), 9))
    assert CountdownStepsEnv().score(problem, "2+2=4 4+5=9").reward == 1
    assert CountdownStepsEnv().score(problem, "2*2=4 2+5=7").reward == 0


def test_steps_are_those_of_an_expression() -> None:
    env, rng = CountdownStepsEnv(), np.random.default_rng(0)
    found = {env.solution(GOAL, rng) for _ in range(200)}
    assert found == {"3*5=15 15+7=22", "5*3=15 15+7=22", "3*5=15 7+15=22", "5*3=15 7+15=22"}


def test_steps_refuse_division() -> None:
    with pytest.raises(UsageError, match="operators"):
        CountdownStepsEnv(operators="+/")
