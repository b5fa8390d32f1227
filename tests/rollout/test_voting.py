"""Majority votes by classes of equivalent answers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ecrl.envs.datasets.math_problems import MathEnv
from ecrl.rollout.pass_at_k import majority_correct
from ecrl.rollout.voting import vote_classes
from tests.support.row_files import jsonl


def as_numbers(one: str, other: str) -> bool:
    return Fraction(one) == Fraction(other)


def test_equivalent_answers_are_one_class() -> None:
    answers = ["1/2", "3", "0.5", None, "3.0", "2/4"]
    correct = [True, False, True, False, False, True]
    assert vote_classes(answers, correct, as_numbers) == [0, 1, 0, None, 1, 0]


def test_a_right_and_a_wrong_answer_are_never_one_class() -> None:
    assert vote_classes(["7", "7"], [True, False], as_numbers) == [0, 1]


@pytest.mark.parametrize("half", [r"\\frac{1}{2}", "1/2", "0.5"])
def test_a_half_written_in_many_ways_wins_over_two_threes(half: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    env = MathEnv(path=str(jsonl(tmp_path / "rows.jsonl", [{"problem": "1 - 1/2", "answer": half}] * 4)))
    env.reset(seed=0)
    answers = [r"\frac{1}{2}", "1/2", "0.5", r"\dfrac12", r"\frac12", "3", "3"]
    correct = [True] * 5 + [False] * 2
    votes = vote_classes(answers, correct, lambda one, other: env.same_answer(env.problem, one, other))
    assert votes == [0, 0, 0, 0, 0, 1, 1]
    assert majority_correct(votes, correct) == 1.0
