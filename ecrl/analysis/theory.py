"""Entropy change of tabular softmax policies: the prediction of first-order theory and the exact change.

    π(a|s) = softmax(z_s)_a                    H(s) = −Σ_a π·log π, nats
    ΔH(s) ≈ −Cov_{a~π}[log π, Δz_s]            for any small change Δz of the logits
    policy gradient   Δz = η·∇J                ΔH(s) ≈ −η·x(s)·Cov_{a~π}[log π, π·A]
    natural gradient  Δz = η·F⁺∇J              ΔH(s) ≈ −η·Cov_{a~π}[log π, A]

``J`` is the expected discounted return, ``x(s)`` the expected discounted visits to s (1 in a bandit), ``A``
the exact advantage, ``F`` the Fisher matrix. The steps use the derivative of J itself, so the measured
change does not depend on the formulas under test. https://arxiv.org/abs/2505.22617, lemma 1 and theorems 1
and 2; natural gradient: https://arxiv.org/abs/1908.00261, lemma 5.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from ecrl.analysis import Floats


@dataclass(frozen=True)
class Decisions:
    """A Markov decision process with ``S`` states and ``A`` actions.

    Attributes:
        rewards: ``[S, A]``.
        transitions: ``[S, A, S]``, probability of each next state.
        start: ``[S]``, distribution of the first state.
        discount: discount factor in [0, 1); 0 in a bandit.
    """

    rewards: Floats
    transitions: Floats
    start: Floats
    discount: float

    def values(self, policy: Floats) -> Floats:
        """Solve the Bellman equation for the action values Q ``[S, A]`` of a policy ``[S, A]``."""
        chain = np.einsum("sa,sat->st", policy, self.transitions)
        reward = (policy * self.rewards).sum(1)
        value = np.linalg.solve(np.eye(len(chain)) - self.discount * chain, reward)
        return np.asarray(self.rewards + self.discount * self.transitions @ value)

    def advantages(self, policy: Floats) -> Floats:
        """Return the exact advantages Q − V ``[S, A]`` of a policy ``[S, A]``."""
        values = self.values(policy)
        return np.asarray(values - (policy * values).sum(1, keepdims=True))

    def visits(self, policy: Floats) -> Floats:
        """Return the expected discounted visits ``[S]`` of a policy; they sum to 1/(1 − discount)."""
        chain = np.einsum("sa,sat->st", policy, self.transitions)
        return np.linalg.solve(np.eye(len(chain)) - self.discount * chain.T, self.start)

    def objective(self, logits: Floats) -> float:
        """Return the expected discounted return J of a softmax policy with logits ``[S, A]``."""
        policy = np.exp(log_softmax(logits, axis=1))
        return float(self.start @ (policy * self.values(policy)).sum(1))


def bandit(random: np.random.Generator, actions: int) -> Decisions:
    """Draw a bandit: one state with normal rewards."""
    return Decisions(random.normal(size=(1, actions)), np.ones((1, actions, 1)), np.ones(1), 0.0)


def chain_of_states(random: np.random.Generator, states: int, actions: int) -> Decisions:
    """Draw a problem of several states: normal rewards, random transitions and start, discount 0.9."""
    rewards = random.normal(size=(states, actions))
    transitions = random.dirichlet(np.ones(states), size=(states, actions))
    return Decisions(rewards, transitions, random.dirichlet(np.ones(states)), 0.9)


def entropy(logits: Floats) -> Floats:
    """Return the entropy ``[S]`` of each state's policy, nats, from logits ``[S, A]``."""
    logprobs = log_softmax(logits, axis=1)
    return np.asarray(-(np.exp(logprobs) * logprobs).sum(1))


def covariance(policy: Floats, x: Floats, y: Floats) -> Floats:
    """Return Cov_{a~π}[x, y] in each state, ``[S]``; all arguments are ``[S, A]``."""
    mean = (policy * x).sum(1, keepdims=True)
    return np.asarray((policy * (x - mean) * y).sum(1))


def gradient(decisions: Decisions, logits: Floats) -> Floats:
    """Return ∇_z J ``[S, A]`` by the chain rule: ∂J/∂π(a|s) = x(s)·Q(s, a), times the softmax Jacobian."""
    policy = np.exp(log_softmax(logits, axis=1))
    slope = decisions.visits(policy)[:, None] * decisions.values(policy)
    return np.asarray(np.einsum("sab,sb->sa", _jacobian(policy), slope))


def natural_gradient(decisions: Decisions, logits: Floats) -> Floats:
    """Return F⁺∇_z J ``[S, A]``, with the Fisher matrix F weighted by the visits to each state."""
    policy = np.exp(log_softmax(logits, axis=1))
    fisher = decisions.visits(policy)[:, None, None] * _jacobian(policy)
    step = np.linalg.pinv(fisher, hermitian=True) @ gradient(decisions, logits)[:, :, None]
    return np.asarray(step[:, :, 0])


def _jacobian(policy: Floats) -> Floats:
    """Jacobian ∂π/∂z of the softmax, ``[S, A, A]``: diag(π) − ππᵀ."""
    return np.asarray(policy[:, :, None] * np.eye(policy.shape[1]) - policy[:, :, None] * policy[:, None, :])


@dataclass(frozen=True)
class Method:
    """An update rule and its predicted effect on the entropy.

    Attributes:
        name: label in tables.
        direction: maps decisions and logits ``[S, A]`` to the step Δz/η ``[S, A]``.
        slope: maps decisions and policy ``[S, A]`` to the predicted ΔH/η ``[S]``, from the advantages.
    """

    name: str
    direction: Callable[[Decisions, Floats], Floats]
    slope: Callable[[Decisions, Floats], Floats]


def _policy_gradient_slope(decisions: Decisions, policy: Floats) -> Floats:
    push = policy * decisions.advantages(policy)
    return np.asarray(-decisions.visits(policy) * covariance(policy, np.log(policy), push))


def _natural_slope(decisions: Decisions, policy: Floats) -> Floats:
    return -covariance(policy, np.log(policy), decisions.advantages(policy))


POLICY_GRADIENT = Method("PG", gradient, _policy_gradient_slope)
NATURAL = Method("NPG", natural_gradient, _natural_slope)


@dataclass(frozen=True)
class Change:
    """Change of each state's entropy in one step of one policy, ``[S]`` each, nats.

    Attributes:
        by_logits: predicted, −Cov[log π, Δz].
        by_advantage: predicted, −η·x(s)·Cov[log π, π·A] or −η·Cov[log π, A].
        measured: H after the step minus H before it.
    """

    by_logits: Floats
    by_advantage: Floats
    measured: Floats


def change(decisions: Decisions, logits: Floats, method: Method, rate: float) -> Change:
    """Take one step with learning rate ``rate`` from ``logits`` ``[S, A]``."""
    logprobs = log_softmax(logits, axis=1)
    policy = np.exp(logprobs)
    step = rate * method.direction(decisions, logits)
    return Change(
        by_logits=-covariance(policy, logprobs, step),
        by_advantage=rate * method.slope(decisions, policy),
        measured=entropy(logits + step) - entropy(logits),
    )


@dataclass(frozen=True)
class Agreement:
    """How well predictions agree with measurements, over many points.

    Attributes:
        error: ‖predicted − measured‖ / ‖measured‖, Euclidean norm over all points; dimensionless.
        correlation: Pearson correlation.
        slope: least squares slope of measured on predicted; 1 is perfect agreement.
    """

    error: float
    correlation: float
    slope: float


def agreement(predicted: Floats, measured: Floats) -> Agreement:
    """Compare predictions ``[n]`` with measurements ``[n]``.

    Correlation and slope are NaN if n < 3 or if either does not vary.
    """
    nan = float("nan")
    size = float(np.linalg.norm(measured))
    error = float(np.linalg.norm(predicted - measured)) / size if size > 0 else nan
    if len(measured) < 3:
        return Agreement(error, nan, nan)
    p, m = predicted - predicted.mean(), measured - measured.mean()
    if not (p.any() and m.any()):
        return Agreement(error, nan, nan)
    return Agreement(error, float(p @ m / np.sqrt((p @ p) * (m @ m))), float(p @ m / (p @ p)))


@dataclass(frozen=True)
class Row:
    """All draws of one problem, method and learning rate.

    Attributes:
        problem: name of the problem.
        method: name of the method.
        rate: learning rate η.
        changes: one for each draw.
    """

    problem: str
    method: str
    rate: float
    changes: list[Change]

    @property
    def measured(self) -> Floats:
        """Measured ΔH of every state of every draw, ``[draws·S]``, nats."""
        return np.concatenate([c.measured for c in self.changes])

    @property
    def by_logits(self) -> Agreement:
        """Agreement of the prediction −Cov[log π, Δz]."""
        return agreement(np.concatenate([c.by_logits for c in self.changes]), self.measured)

    @property
    def by_advantage(self) -> Agreement:
        """Agreement of the prediction from the advantages."""
        return agreement(self.predicted, self.measured)

    @property
    def predicted(self) -> Floats:
        """ΔH predicted from the advantages, ``[draws·S]``, nats."""
        return np.concatenate([c.by_advantage for c in self.changes])


def study(
    *, actions: int = 50, states: int = 10, draws: int = 50, rates: tuple[float, ...], seed: int = 0
) -> list[Row]:
    """Step random policies (normal logits) on random problems, once for each method and learning rate.

    Args:
        actions: number of actions of the bandit and of each state.
        states: number of states of the larger problem.
        draws: number of random problems and policies of each kind.
        rates: learning rates.
        seed: seed of all random numbers.
    """
    random = np.random.default_rng(seed)
    problems = {
        "bandit": [bandit(random, actions) for _ in range(draws)],
        f"{states} states": [chain_of_states(random, states, actions) for _ in range(draws)],
    }
    rows = []
    for name, some in problems.items():
        logits = [random.normal(size=decisions.rewards.shape) for decisions in some]
        for method in (POLICY_GRADIENT, NATURAL):
            for rate in rates:
                changes = [change(d, z, method, rate) for d, z in zip(some, logits, strict=True)]
                rows.append(Row(name, method.name, rate, changes))
    return rows
