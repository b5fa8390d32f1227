"""pass@k and majority votes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ecrl.rollout.pass_at_k import by_problem, majority_correct, pass_at_k


def test_pass_at_k() -> None:
    # 4 answers, 1 right: one draw hits ¼, two draws 1 − C(3,2)/C(4,2) = ½
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(16, 16, 1) == 1.0


def test_pass_at_k_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(16, 0.3, size=20000)
    estimate = np.mean([pass_at_k(16, int(c), 4) for c in counts])
    assert estimate == pytest.approx(1 - 0.7**4, abs=0.005)


def test_majority() -> None:
    assert majority_correct([0, 0, 1], [True, True, False]) == 1.0
    assert majority_correct([0, 1, 1], [True, False, False]) == 0.0
    assert majority_correct([0, 1], [True, False]) == 0.5
    # Completions without an answer vote for none.
    assert majority_correct([None, None, 0], [False, False, True]) == 0.0
    assert majority_correct([None, 0], [False, True]) == 0.5
    assert majority_correct([None, None], [False, False]) == 0.0


def test_means_over_problems() -> None:
    rewards = np.asarray([[1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    votes = [[0, 1, 1, 2], [0, 0, 0, 0]]
    result = {name: float(values.mean()) for name, values in by_problem(rewards, votes).items()}
    assert result == pytest.approx(
        {"avg@4": 0.6875, "pass@1": 0.625, "pass@2": 0.75, "pass@4": 1.0, "maj@4": 0.5}
    )
