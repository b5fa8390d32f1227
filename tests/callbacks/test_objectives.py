"""Every strategy under every objective: weights and advantages of single tokens act on single tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan, planned_loss
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.groups import options
from ecrl.config.schema import Config
from tests.support.conformance import EVERY, Row, make_batch, make_module, node

QUICK = ("grpo", "gspo", "cispo")  # one of each kind of surrogate
OBJECTIVES = pytest.mark.parametrize(
    "objective",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in options("objective")],
)


def planned(
    row: Row, objective: str, tiny: Callable[..., Config]
) -> tuple[TokenBatch, LossPlan, Objective, Sequence[Strategy]]:
    """A plan over tokens whose current log-probs lie away from the old ones."""
    config = tiny(f"objective={objective}")
    strategies = build_strategies(node(row, row.active))
    module = make_module(config, strategies)
    batch = make_batch(module)
    bounds = module.objective.bounds
    tokens = batch.tokens(3, 1 - bounds.low, 1 + bounds.high)
    logprobs, entropy = module.scorer.score(batch)
    tokens = replace(tokens, logprobs=logprobs, entropy=entropy)
    return tokens, make_loss_plan(tokens, module.objective, strategies), module.objective, strategies


def token_gradient(
    plan: LossPlan, objective: Objective, strategies: Sequence[Strategy]
) -> tuple[Tensor, Tensor]:
    """Gradient of the loss in each token's log-prob and entropy, ``[N]`` each."""
    logprobs, entropy = (
        x.detach().clone().requires_grad_() for x in (plan.tokens.logprobs, plan.tokens.entropy)
    )
    tokens = replace(plan.tokens, logprobs=logprobs, entropy=entropy)
    loss = planned_loss(tokens, plan, objective, strategies)
    gradients = torch.autograd.grad(loss, (logprobs, entropy), allow_unused=True, materialize_grads=True)
    return gradients[0], gradients[1]


@EVERY
@OBJECTIVES
def test_a_token_of_weight_0_has_no_gradient(row: Row, objective: str, tiny: Callable[..., Config]) -> None:
    _, plan, algorithm, strategies = planned(row, objective, tiny)
    chosen = torch.arange(len(plan.weights)) % 3 == 0
    plan = replace(plan, weights=plan.weights.masked_fill(chosen, 0.0), coefficients={})
    by_logprob, by_entropy = token_gradient(plan, algorithm, strategies)
    assert not by_logprob[plan.weights == 0].any() and not by_entropy.any()
    assert by_logprob[plan.weights != 0].any()


@EVERY
@OBJECTIVES
def test_an_advantage_moves_the_gradient_of_its_own_token_only(
    row: Row, objective: str, tiny: Callable[..., Config]
) -> None:
    _, plan, algorithm, strategies = planned(row, objective, tiny)
    before, _ = token_gradient(plan, algorithm, strategies)
    clipped = algorithm.surrogate(plan.tokens).clipped
    token = int(((plan.weights != 0) & ~clipped & (plan.tokens.advantages != 0)).nonzero()[0])
    advantages = plan.tokens.advantages.clone()
    advantages[token] *= 1.5
    moved, _ = token_gradient(
        replace(plan, tokens=replace(plan.tokens, advantages=advantages)), algorithm, strategies
    )
    others = torch.arange(len(moved)) != token
    assert torch.equal(moved[others], before[others]) and moved[token] != before[token]


@EVERY
@OBJECTIVES
def test_what_a_surrogate_clips_has_no_gradient(
    row: Row, objective: str, tiny: Callable[..., Config]
) -> None:
    _, plan, algorithm, strategies = planned(row, objective, tiny)
    by_logprob, _ = token_gradient(replace(plan, coefficients={}), algorithm, strategies)
    clipped = algorithm.surrogate(plan.tokens).clipped
    assert not by_logprob[clipped].any()
