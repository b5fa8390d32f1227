"""Tabular theory: values and gradients against other ways to get them."""

from __future__ import annotations

import numpy as np
import pytest

from ecrl.analysis.theory import (
    NATURAL,
    POLICY_GRADIENT,
    Decisions,
    Method,
    agreement,
    bandit,
    chain_of_states,
    change,
    covariance,
    entropy,
    gradient,
    natural_gradient,
    study,
)

PROBLEM = chain_of_states(np.random.default_rng(3), states=4, actions=5)
LOGITS = np.random.default_rng(4).normal(size=(4, 5))
POLICY = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def test_entropy_and_covariance_by_hand() -> None:
    policy = np.array([[0.5, 0.25, 0.25]])
    assert entropy(np.log(policy)) == pytest.approx([1.5 * np.log(2)])
    # E[xy] = 4·0.5 + 2·0.25 = 2.5; E[x] = 1.5, E[y] = 1.25.
    x, y = np.array([[2.0, 1.0, 1.0]]), np.array([[2.0, 2.0, -1.0]])
    assert covariance(policy, x, y) == pytest.approx([2.25 - 1.5 * 1.25])


def test_values_are_what_long_walks_return() -> None:
    """A thousand steps by matrix powers, instead of the linear system."""
    chain = np.einsum("sa,sat->st", POLICY, PROBLEM.transitions)
    reward = (POLICY * PROBLEM.rewards).sum(1)
    steps = [PROBLEM.discount**t * np.linalg.matrix_power(chain, t) for t in range(400)]
    value = sum(step @ reward for step in steps)
    assert (POLICY * PROBLEM.values(POLICY)).sum(1) == pytest.approx(value)
    assert PROBLEM.visits(POLICY) == pytest.approx(sum(PROBLEM.start @ step for step in steps))
    assert PROBLEM.visits(POLICY).sum() == pytest.approx(1 / (1 - PROBLEM.discount))
    assert (POLICY * PROBLEM.advantages(POLICY)).sum(1) == pytest.approx(np.zeros(4), abs=1e-12)


def test_the_gradient_is_that_of_the_objective() -> None:
    slope = np.zeros_like(LOGITS)
    for index in np.ndindex(*LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[index] = 1e-5
        slope[index] = (PROBLEM.objective(LOGITS + step) - PROBLEM.objective(LOGITS - step)) / 2e-5
    assert gradient(PROBLEM, LOGITS) == pytest.approx(slope, abs=1e-8)


def test_the_natural_gradient_is_the_advantage_up_to_a_constant_in_each_state() -> None:
    apart = natural_gradient(PROBLEM, LOGITS) - PROBLEM.advantages(POLICY)
    assert apart == pytest.approx(np.broadcast_to(apart[:, :1], apart.shape), abs=1e-9)


def test_the_bandit_by_hand() -> None:
    """π = (¾, ¼), R = (1, 0): A = (¼, −¾), log π apart by log 3."""
    problem = Decisions(np.array([[1.0, 0.0]]), np.ones((1, 2, 1)), np.ones(1), 0.0)
    logits = np.log(np.array([[0.75, 0.25]]))
    expected = {
        # Cov[log π, A] = π₁π₂·log 3·(A₁ − A₂); for the policy gradient A₁π₁ − A₂π₂.
        NATURAL: -1e-4 * 0.75 * 0.25 * np.log(3) * 1.0,
        POLICY_GRADIENT: -1e-4 * 0.75 * 0.25 * np.log(3) * (0.75 * 0.25 + 0.25 * 0.75),
    }
    for method, value in expected.items():
        step = change(problem, logits, method, 1e-4)
        assert step.by_advantage == pytest.approx([value])
        assert step.by_logits == pytest.approx([value])
        assert step.measured == pytest.approx([value], rel=1e-3)


@pytest.mark.parametrize("method", [POLICY_GRADIENT, NATURAL], ids=lambda m: m.name)
def test_the_error_is_of_second_order(method: Method) -> None:
    """A tenth of the learning rate leaves a tenth of the relative error."""
    for problem in (bandit(np.random.default_rng(1), 50), PROBLEM):
        logits = np.random.default_rng(2).normal(size=problem.rewards.shape)
        large, small = (change(problem, logits, method, rate) for rate in (1e-3, 1e-4))
        errors = [agreement(c.by_advantage, c.measured).error for c in (large, small)]
        assert errors[0] < 0.05 and errors[1] == pytest.approx(errors[0] / 10, rel=0.05)


def test_agreement_by_hand() -> None:
    fit = agreement(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0]))
    # Centred: p = (−1, 0, 1), m = (−1, 1, 0): p·m = 1, p·p = 2, m·m = 2.
    assert (fit.slope, fit.correlation) == pytest.approx((0.5, 0.5))
    assert fit.error == pytest.approx(np.sqrt(5 / 14))
    two = agreement(np.array([1.0, 2.0]), np.array([1.0, 2.0]))  # any two points lie on a line
    assert two.error == 0 and np.isnan(two.slope) and np.isnan(two.correlation)


def test_agreement_with_fifty_actions_is_what_we_state() -> None:
    """Within 0.5 % at η = 1e-3, and gone at η = 10."""
    for row in study(draws=10, rates=(1e-3, 10.0)):
        worst = max(row.by_logits.error, row.by_advantage.error)
        assert worst < 0.005 if row.rate == 1e-3 else worst > 0.5
        if row.rate == 1e-3:
            assert row.by_advantage.correlation > 0.9999
            assert row.by_advantage.slope == pytest.approx(1, abs=2e-3)
