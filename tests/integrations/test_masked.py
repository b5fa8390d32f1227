"""Masked tensors become flat tokens; what a trainer does not hand over is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import make_loss_plan, planned_loss, token_losses
from ecrl.algorithm.losses import sequence_mean
from ecrl.algorithm.objective import Bounds, Objective
from ecrl.algorithm.strategy import Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.callbacks.adaptive_entropy import AdaptiveEntropy
from ecrl.callbacks.clip_cov import ClipCov
from ecrl.callbacks.entropy_bonus import EntropyBonus
from ecrl.callbacks.high_entropy_tokens import HighEntropyTokens
from ecrl.callbacks.kl_cov import KLCov
from ecrl.callbacks.reference_kl import ReferenceKL
from ecrl.errors import UsageError
from ecrl.integrations.masked import check_fit, concatenated, metrics_of, named, token_batch

MASK = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1]])


def batch(seed: int = 0, mask: Tensor = MASK) -> TokenBatch:
    draw = torch.Generator().manual_seed(seed)
    logprobs, old = -torch.rand(2, *mask.shape, generator=draw)
    return token_batch(
        mask, logprobs, old, torch.tensor([1.0, 5.0, -1.0])[: len(mask)], bounds=Bounds(0.1, 0.3)
    )


def test_rows_without_tokens_and_holes_are_left_out() -> None:
    values = torch.arange(9.0).reshape(3, 3)
    tokens = token_batch(MASK, values, values + 10, torch.tensor([1.0, 5.0, -1.0]), bounds=Bounds(0.1, 0.3))
    assert tokens.logprobs.tolist() == [0, 1, 7, 8] and tokens.old_logprobs.tolist() == [10, 11, 17, 18]
    assert tokens.advantages.tolist() == [1, 1, -1, -1]
    assert tokens.sequence_ids.tolist() == [0, 0, 1, 1] and tokens.uid.tolist() == [0, 0, 2, 2]
    assert tokens.positions.tolist() == [0, 1, 1, 2]
    assert tokens.low.tolist() == pytest.approx([0.9] * 4) and tokens.high.tolist() == pytest.approx(
        [1.3] * 4
    )
    assert tokens.entropy.isnan().all()


def test_joined_batches_keep_their_sequences_apart() -> None:
    joined = concatenated([batch(0), batch(1, MASK[:1])])
    assert joined.sequence_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(zip(joined.uid.tolist(), joined.positions.tolist(), strict=True))) == 6
    one, other = Objective(aggregation=sequence_mean), make_loss_plan(joined, Objective(), [])
    assert one.aggregation(joined).tolist() == pytest.approx([1 / 6] * 6) and len(other.tokens) == 6


def test_the_loss_is_the_aggregation_of_the_tokens_losses() -> None:
    stack = named([ClipCov(fraction=0.5, low=-9, high=9), KLCov(fraction=0.5)])
    tokens = batch()
    plan = make_loss_plan(tokens, Objective(), stack)
    losses = token_losses(plan.tokens, plan, Objective(), stack)
    ratio = (tokens.logprobs - tokens.old_logprobs).exp()
    penalised = plan.coefficients["KLCov"]
    by_hand = -ratio * tokens.advantages * plan.weights + penalised * tokens.log_ratio.abs()
    torch.testing.assert_close(losses, by_hand)
    torch.testing.assert_close(planned_loss(plan.tokens, plan, Objective(), stack), by_hand.mean())
    assert metrics_of(plan, stack) == {
        "strategy/ClipCov/changed_fraction": 0.5,
        "strategy/KLCov/changed_fraction": 0.5,
        "strategy/KLCov/coefficient": 1.0,
    }


def test_strategies_made_in_python_get_names_of_their_own() -> None:
    assert [s.name for s in named([KLCov(), KLCov(), ClipCov()])] == ["KLCov", "KLCov_2", "ClipCov"]


class Plain(Strategy, WeightMixin):
    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        return weights


@pytest.mark.parametrize(
    ("strategy", "entropy", "says"),
    [
        (AdaptiveEntropy(), True, "watches ecrl's rollouts"),
        (ReferenceKL(), True, "log-probs of another policy"),
        (EntropyBonus(), False, "needs the policy's entropies"),
        (HighEntropyTokens(), False, "needs the policy's entropies"),
        ("kl_cov", True, "takes ecrl's strategies"),
        (EntropyBonus(), True, None),
        (HighEntropyTokens(), True, None),
        (KLCov(), False, None),
        (ClipCov(), False, None),
        (Plain(), False, None),
    ],
)
def test_what_a_trainer_does_not_hand_over_is_refused(
    strategy: Strategy, entropy: bool, says: str | None
) -> None:
    if says is None:
        assert check_fit([strategy], "T", entropy=entropy) == [strategy]
        return
    with pytest.raises(UsageError, match=says):
        check_fit([strategy], "T", entropy=entropy)
