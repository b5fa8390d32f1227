"""What every strategy owes under every objective, in float32 and in bf16: a row each, all checks inherited.

Neutral is bit-identical to none; loss, gradient and choices depend on neither order nor partition into
micro-batches; weights and advantages of single tokens act on single tokens; the state survives. The policy is
a trained one, sure of most of its tokens, an update away from the one that drew the rollout.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan, planned_loss
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy_stack import check_stack
from tests.support.conformance import ROWS, node
from tests.support.paths import ROOT
from tests.support.trained import PACKED, PADDED, WHOLE, Bench, Trained, update

#: How far the gradients of two partitions may lie apart, as a share of their norm. In float32 it is rounding
#: in sums of some thousand numbers. A bf16 number has 8 significant bits, so rounding changes it by at most
#: 2⁻⁸; autocast rounds each micro-batch's gradient of a weight to bf16, in either partition.
TOLERANCE = {"32-true": 1e-5, "bf16-mixed": 3 * 2**-8}


def test_every_shipped_strategy_has_a_row() -> None:
    shipped = {
        str(name) for path in (ROOT / "configs" / "strategy").glob("*.yaml") for name in OmegaConf.load(path)
    }
    assert shipped == {row.name for row in ROWS if not row.target}


def test_the_rollout_is_as_hard_as_it_should_be(trained: Trained) -> None:
    """A sure policy that does unlikely things; ragged texts; unequal groups; twins; single tokens."""
    batch = trained.batch("32-true")
    prompts = [len(sequence.prompt_ids) for sequence in batch.sequences]
    assert min(prompts) < 15 and max(prompts) > 110
    assert batch.lengths.min() == 1 and batch.lengths.max() == 40
    _, sizes = torch.unique(batch.group_ids, return_counts=True)
    assert sizes.min() == 1 and len(set(sizes.tolist())) > 2
    texts = [(*sequence.prompt_ids, -1, *sequence.response_ids) for sequence in batch.sequences]
    assert len(set(texts)) < len(texts) == len(set(batch.uid.tolist()))
    assert batch.old_logprobs.median() > -0.01 and batch.old_logprobs.min() < -10


def drawn(batch: RolloutBatch) -> RolloutBatch:
    return batch


def fresh(batch: RolloutBatch) -> RolloutBatch:
    """As the first minibatch of a rollout, which plans with the stored log-probs."""
    return replace(batch, fresh=True)


def without_contrast(batch: RolloutBatch) -> RolloutBatch:
    return replace(batch, advantages=torch.zeros(batch.num_tokens))


def exact(batch: RolloutBatch) -> RolloutBatch:
    """As of an engine that computes what the trainer computes."""
    return replace(batch, engine_logprobs=batch.old_logprobs)


def test_neutral_is_bit_identical_to_none(bench: Bench) -> None:
    plain, batch = bench.plain
    neutral = bench.module(node(bench.row, bench.row.neutral))
    neutral_batch = bench.batch(neutral)
    for case, budget in [(drawn, WHOLE), (fresh, PACKED), (without_contrast, PACKED)]:
        loss, expected, _ = update(plain, exact(case(batch)), budget)
        neutral_loss, got, _ = update(neutral, exact(case(neutral_batch)), budget)
        assert neutral_loss == loss and torch.equal(got, expected)


def test_active_acts_or_says_that_it_does_not(bench: Bench) -> None:
    module, batch = bench.active
    _, got, plan = bench.outcome
    _, expected, _ = update(*bench.plain)
    shaped = plan.tokens.advantages != batch.advantages
    if bench.row.draws:
        assert torch.equal(got, expected) and module.temperature != module.config.rollout.temperature
    elif any("does nothing" in warning for warning in check_stack(module.config, module.strategies)):
        assert torch.equal(got, expected)
    elif shaped.any() and module.objective.surrogate(bench.plan.tokens).clipped[shaped].all():
        assert torch.equal(got, expected)  # it shapes the advantages of tokens that the ratio's clip holds
    else:
        assert (got - expected).norm() > 1e-3 * expected.norm()
        assert all(0 < plan.changed_fraction[name] <= 1 for name in bench.row.planned)


@pytest.mark.parametrize("case", ["moved", "unmoved", "without contrast"])
def test_neither_partition_nor_order_matters(bench: Bench, case: str) -> None:
    module, batch = bench.unmoved if case == "unmoved" else bench.active
    batch = without_contrast(batch) if case == "without contrast" else batch
    loss, expected, plan = bench.outcome if case == "moved" else update(module, batch)
    assert torch.isfinite(expected).all()
    straight = torch.arange(len(batch))
    shuffled = torch.randperm(len(batch), generator=torch.Generator().manual_seed(3))
    for order, budget in [(straight, PACKED), (shuffled, PADDED)]:
        other_loss, other, other_plan = update(module, batch.select(order), budget)
        differ = choices(other_plan) != choices(plan)[:, batch.token_index(order)]
        # In bf16 a token at the edge of a choice may fall to either side; in float32 none may.
        assert differ.float().mean() <= (0.01 if bench.precision == "bf16-mixed" else 0)
        if not differ.any():
            tolerance = TOLERANCE[bench.precision]
            assert other_loss == pytest.approx(loss, rel=tolerance, abs=tolerance)
            assert (other - expected).norm() <= tolerance * expected.norm()


def choices(plan: LossPlan) -> Tensor:
    """What was chosen, ``[2, N]``: tokens without weight, and tokens with a penalty."""
    penalised = sum((c != 0 for c in plan.coefficients.values()), torch.zeros_like(plan.weights))
    return torch.stack([plan.weights == 0, penalised != 0])


def token_gradient(bench: Bench, plan: LossPlan) -> tuple[Tensor, Tensor]:
    """Gradient of the loss in each token's log-prob and entropy, ``[N]`` each."""
    module, _ = bench.active
    logprobs, entropy = (
        x.detach().clone().requires_grad_() for x in (plan.tokens.logprobs, plan.tokens.entropy)
    )
    tokens = replace(plan.tokens, logprobs=logprobs, entropy=entropy)
    loss = planned_loss(tokens, plan, module.objective, module.strategies)
    by_logprob, by_entropy = torch.autograd.grad(
        loss, (logprobs, entropy), allow_unused=True, materialize_grads=True
    )
    return by_logprob, by_entropy


def test_a_token_of_weight_0_has_no_gradient(bench: Bench) -> None:
    chosen = torch.arange(len(bench.plan.weights)) % 3 == 0
    plan = replace(bench.plan, weights=bench.plan.weights.masked_fill(chosen, 0.0), coefficients={})
    by_logprob, by_entropy = token_gradient(bench, plan)
    assert not by_logprob[plan.weights == 0].any() and not by_entropy.any()
    assert by_logprob[plan.weights != 0].any()


def test_an_advantage_moves_the_gradient_of_its_own_token_only(bench: Bench) -> None:
    plan = bench.plan
    before, _ = token_gradient(bench, plan)
    token = int(trained_tokens(bench).nonzero()[0])
    advantages = plan.tokens.advantages.clone()
    advantages[token] *= 1.5
    moved, _ = token_gradient(bench, replace(plan, tokens=replace(plan.tokens, advantages=advantages)))
    others = torch.arange(len(moved)) != token
    assert torch.equal(moved[others], before[others]) and moved[token] != before[token]


def test_a_surrogate_says_which_tokens_it_gives_no_gradient(bench: Bench) -> None:
    by_logprob, _ = token_gradient(bench, replace(bench.plan, coefficients={}))
    assert torch.equal(by_logprob != 0, trained_tokens(bench))


def trained_tokens(bench: Bench) -> Tensor:
    """Tokens ``[N]`` with a weight and an advantage that the surrogate does not call clipped."""
    module, _ = bench.active
    clipped = module.objective.surrogate(bench.plan.tokens).clipped
    return (bench.plan.weights != 0) & (bench.plan.tokens.advantages != 0) & ~clipped


def test_its_state_survives(bench: Bench) -> None:
    module, batch = bench.active
    loss, expected, _ = bench.outcome
    again = bench.module(node(bench.row, bench.row.active))
    for strategy, saved in zip(again.strategies, module.strategies, strict=True):
        strategy.load_state_dict(saved.state_dict())
    for strategy in again.strategies:
        strategy.on_train_start(again.trainer, again)
    for strategy, saved in zip(again.strategies, module.strategies, strict=True):
        assert strategy.state_dict() == saved.state_dict()
        assert strategy.logged_coefficient() == saved.logged_coefficient()
    other_loss, other, _ = update(again, batch)
    assert other_loss == loss and torch.equal(other, expected)
