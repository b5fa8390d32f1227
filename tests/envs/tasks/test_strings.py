"""Operations on strings."""

from __future__ import annotations

import pytest

from ecrl.envs import Problem
from ecrl.envs.tasks.strings import OPERATIONS, StringsEnv, apply
from tests.support.environments import problems


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("reverse", "zabca"),
        ("sort", "aabcz"),
        ("rotate", "cbaza"),
        ("double", "aaccbbaazz"),
        ("halve", "abz"),
        ("drop a", "cbz"),
        ("drop x", "acbaz"),
        ("next", "bdcba"),
    ],
)
def test_operations_by_hand(operation: str, result: str) -> None:
    assert apply(operation, "acbaz") == result


def test_strings_ask_for_what_they_are_told_to() -> None:
    for name in OPERATIONS:
        env = StringsEnv(operations=[name], steps=8, length=32)
        for problem in problems(env, 5):
            start, _, names = problem.prompt.strip().partition(": ")
            assert {n.split()[0] for n in names.split(", ")} == {name}
            for operation in names.split(", "):
                start = apply(operation, start)
            assert start == problem.answer != ""


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("reverse=cba", 1, 1),
        ("cba", 1, 1),
        (" = cba\n", 1, 1),
        ("abc", 0, 1),
        ("cba=abc", 0, 1),
        ("CBA", 0, 0),
        ("c b a", 0, 0),
        ("cba.", 0, 0),
        ("cba=", 0, 0),
    ],
)
def test_strings_by_hand(response: str, reward: float, valid: float) -> None:
    score = StringsEnv().score(Problem("abc: reverse\n", "cba"), response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})
