"""Numbers in other bases."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from ecrl.envs import Problem
from ecrl.envs.tasks.number_bases import BasesEnv
from ecrl.errors import UsageError
from tests.support.environments import SETTINGS, problems


@pytest.mark.parametrize("kwargs", SETTINGS[BasesEnv])
def test_bases_agree_with_python(kwargs: dict[str, Any]) -> None:
    env, rng = BasesEnv(**kwargs), np.random.default_rng(0)
    for problem in problems(env, 100):
        number, source, target = re.findall(r"\S+(?= base)|\d+(?= to)|(?<=to )\d+", problem.prompt)
        assert source != target
        assert int(number, int(source)) == int(problem.answer, int(target)) <= env.maximum
        steps = env.solution(problem, rng).split(" ")[:-1]
        # The steps are the environment's own, so Python may judge them.
        assert all(eval(left) == eval(right) for left, right in (s.split("=") for s in steps))


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("1*16+10=26 =1a", 1, 1),
        ("1A", 1, 1),
        (" 1a ", 1, 1),
        ("26", 0, 1),
        ("01a", 0, 0),
        ("0x1a", 0, 0),
        ("1a.", 0, 0),
        ("-1a", 0, 0),
        ("1 a", 0, 0),
        ("１a", 0, 0),
        ("", 0, 0),
    ],
)
def test_bases_by_hand(response: str, reward: float, valid: float) -> None:
    score = BasesEnv().score(Problem("26 base 10 to 16\n", "1a"), response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


def test_two_bases_are_needed() -> None:
    with pytest.raises(UsageError, match="high must be above low=16"):
        BasesEnv(low=16, high=16)
