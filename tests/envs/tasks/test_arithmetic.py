"""Arithmetic: the verifier by hand, worked steps, slips."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest

from ecrl.envs.base import Problem, Score
from ecrl.envs.tasks.arithmetic import ArithmeticEnv


@pytest.mark.parametrize(
    ("response", "reward", "valid", "answer"),
    [
        ("4*2=8 3+8=11", 1, 1, "11"),
        ("11", 1, 1, "11"),
        (" 11\n", 1, 1, "11"),
        ("=11", 1, 1, "11"),
        ("whatever = 11", 1, 1, "11"),
        ("3+4=7 7*2=14", 0, 1, "14"),
        ("11=12", 0, 1, "12"),
        ("-11", 0, 1, "-11"),
        ("4*2=8 3+8=", 0, 0, None),
        ("11 apples", 0, 0, None),
        ("3+8", 0, 0, None),
        ("011", 0, 0, None),
        ("+11", 0, 0, None),
        ("11.0", 0, 0, None),
        ("1 1", 0, 0, None),
        ("١١", 0, 0, None),
        ("１１", 0, 0, None),
        ("11\u00a0", 0, 0, None),
        ("-0", 0, 0, None),
        ("", 0, 0, None),
    ],
)
def test_arithmetic_by_hand(response: str, reward: float, valid: float, answer: str | None) -> None:
    score = ArithmeticEnv().score(Problem("3+4*2\n", "11"), response)
    assert score == Score(reward, {"valid": valid}, answer)


@pytest.mark.parametrize(
    ("prompt", "solution"),
    [
        ("3+4*2\n", "4*2=8 3+8=11"),
        ("2*3*4-5\n", "2*3=6 6*4=24 24-5=19"),
        ("3-8+2\n", "3-8=-5 -5+2=-3"),
        ("1-2*3-4*5\n", "2*3=6 4*5=20 1-6=-5 -5-20=-25"),
        ("12-7\n", "12-7=5"),
    ],
)
def test_arithmetic_works_products_first_then_from_the_left(prompt: str, solution: str) -> None:
    problem = Problem(prompt, solution.rpartition("=")[2])
    assert ArithmeticEnv().solution(problem, np.random.default_rng(0)) == solution


@pytest.mark.parametrize(("steps", "digits"), product((1, 2, 5), (1, 3)))
def test_arithmetic_answers_and_difficulty(steps: int, digits: int) -> None:
    env, rng = ArithmeticEnv(steps=steps, digits=digits), np.random.default_rng(0)
    for problem in (env.sample_problem(rng) for _ in range(100)):
        expression = problem.prompt.removesuffix("\n")
        # The expression is the environment's own, so Python may judge it.
        assert problem.answer == str(eval(expression))
        assert sum(map(expression.count, "+-*")) == steps
        assert all(len(n) == digits for n in expression.translate({ord(c): " " for c in "+-*"}).split())


def test_an_arithmetic_slip_is_one_step_and_always_ends_wrong() -> None:
    env, rng = ArithmeticEnv(steps=3), np.random.default_rng(0)
    for problem in (env.sample_problem(rng) for _ in range(300)):
        text = env.solution(problem, rng, correct=False)
        steps = [step.rpartition("=") for step in text.split(" ")]
        assert sum(eval(left) != int(result) for left, _, result in steps) == 1
        assert not re.search("[-+*]-", text), "a right operand is never negative in a correct solution"
        assert env.score(problem, text).reward == 0.0
