"""The copies of a problem: drawn twice at most where that is enough, and never different ones."""

from __future__ import annotations

from itertools import count
from typing import Any, ClassVar

import numpy as np
import pytest

from ecrl.envs.base import Problem, ReasoningEnv, Score
from ecrl.errors import UsageError
from ecrl.rollout.group_reset import reset_group

ARGUMENTS: dict[str, Any] = {"seed": 5, "options": None}


class Drawn(ReasoningEnv):
    """Counts how often a problem is drawn."""

    draws: ClassVar[int] = 0

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        type(self).draws += 1
        return Problem(f"{rng.integers(10**9)}\n", answer=None, key="one")

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(response == problem.prompt))


class Turns(Drawn):
    """Has a state of its own."""

    def reset(self, **arguments: Any) -> tuple[str, dict[str, Any]]:
        self.turn = 0
        return super().reset(**arguments)


class Unsteady(Drawn):
    """Draws by no seed."""

    numbers = count()

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem(f"{next(self.numbers)}\n", answer=None, key="one")


@pytest.mark.parametrize(("kind", "draws"), [(Drawn, 2), (Turns, 6)])
def test_all_copies_pose_the_problem_that_the_seed_decides(kind: type[Drawn], draws: int) -> None:
    envs = [kind() for _ in range(6)]
    reset_group(envs, {"seed": 4, "options": None})
    kind.draws = 0
    prompt, info = reset_group(envs, ARGUMENTS)
    assert kind.draws == draws
    assert prompt == kind().reset(seed=5)[0] == info["problem"].prompt
    assert [env.step(prompt)[1] for env in envs] == [1.0] * 6


def test_a_seed_that_does_not_decide_the_problem_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"gave two different problems for one seed: '0\\n' and '1\\n'"):
        reset_group([Unsteady() for _ in range(6)], ARGUMENTS)
