"""Knights and knaves."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from ecrl.envs import Problem
from ecrl.envs.tasks.knights import KnightsEnv
from tests.support.environments import SETTINGS, problems


def _says(sentence: str, kinds: dict[str, str]) -> bool:
    """Whether a sentence of the prompt is true, read from its text alone."""
    facts = [kinds[who] == kind for who, kind in re.findall(r"([A-Z]) is a (knight|knave)", sentence)]
    return any(facts) if " or " in sentence else all(facts)


@pytest.mark.parametrize("kwargs", SETTINGS[KnightsEnv])
def test_knights_have_one_answer_by_the_text_of_the_prompt(kwargs: dict[str, Any]) -> None:
    env = KnightsEnv(**kwargs)
    for problem in problems(env, 20):
        sentences = dict(re.findall(r"([A-Z]): ([^.]*)\.", problem.prompt))
        fitting = []
        for kinds in product(("knight", "knave"), repeat=len(sentences)):
            world = dict(zip(sentences, kinds, strict=True))
            if all(_says(text, world) == (world[who] == "knight") for who, text in sentences.items()):
                fitting.append(" ".join(f"{who}={kind}" for who, kind in world.items()))
        assert len(fitting) == 1
        assert env.score(problem, fitting[0]).reward == 1.0


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("A=knave B=knight", 1, 1),
        ("B=knight, A=knave\n", 1, 1),
        ("A=knight B=knight: no, A\nA=knave B=knight", 1, 1),
        ("A=knight B=knight", 0, 1),
        ("A=knave", 0, 0),
        ("A=knave B=knight C=knight", 0, 0),
        ("A=knave A=knave B=knight", 0, 0),
        ("A=knave B=knight A=knight", 0, 0),
        ("A=knave A=knight", 0, 0),
        ("A=knave B=knight\nDone.", 0, 0),
        ("So A=knave B=knight", 0, 0),
        ("a=knave b=knight", 0, 0),
        ("A=knave B=knights", 0, 0),
        ("А=knave B=knight", 0, 0),  # a Cyrillic A
    ],
)
def test_knights_by_hand(response: str, reward: float, valid: float) -> None:
    problem = Problem("", ((), (False, True)))
    score = KnightsEnv(people=2).score(problem, response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})
