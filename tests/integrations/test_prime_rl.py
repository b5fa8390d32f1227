"""The custom loss for prime-rl, on inputs of the form that it hands over; no index has the package."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from ecrl.errors import UsageError
from ecrl.integrations.prime_rl import RecentTokens, policy_loss


@dataclass
class Inputs:
    """The fields of prime-rl's ``LossInputs``."""

    trainer_logprobs: Tensor
    inference_logprobs: Tensor
    advantages: Tensor
    loss_mask: Tensor
    ref_logprobs: Tensor | None = None
    loss_weights: Tensor | None = None


def sequence(seed: int, advantage: float, length: int = 30) -> Inputs:
    draw = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(length, generator=draw)
    current = (old + 0.1 * torch.randn(length, generator=draw)).requires_grad_()
    return Inputs(current, old, torch.full((length,), advantage), torch.rand(length, generator=draw) < 0.8)


def test_without_a_strategy_it_is_the_clipped_surrogate() -> None:
    one = sequence(0, -1.5)
    loss, metrics = RecentTokens(["strategy=[]"], 100).loss(one)
    ratio = (one.trainer_logprobs - one.inference_logprobs).exp()
    by_hand = -torch.minimum(ratio * -1.5, ratio.clamp(0.8, 1.2) * -1.5)[one.loss_mask].sum()
    torch.testing.assert_close(loss, by_hand)
    assert metrics == {}


def test_weights_of_tokens_apply() -> None:
    one = sequence(0, 1.0)
    plain, _ = RecentTokens(["strategy=[]"], 100).loss(one)
    one.loss_weights = torch.full((30,), 0.25)
    weighted, _ = RecentTokens(["strategy=[]"], 100).loss(one)
    torch.testing.assert_close(weighted, plain / 4)


def test_covariance_shows_beside_earlier_sequences_only() -> None:
    """A sequence alone has one advantage, so no covariance; beside one of another advantage it has."""
    words = ["strategy=[kl_cov]", "strategy.kl_cov.fraction=0.2"]
    recent = RecentTokens(words, 1000)
    right, wrong = sequence(1, 1.0), sequence(2, -1.0)
    recent.loss(right)
    loss, metrics = recent.loss(wrong)
    assert metrics["strategy/kl_cov/changed_fraction"] == pytest.approx(0.2, abs=0.02)

    kept = [one.loss_mask for one in (wrong, right)]
    logprobs = torch.cat(
        [one.trainer_logprobs[m] for one, m in zip((wrong, right), kept, strict=True)]
    ).detach()
    advantages = torch.cat([one.advantages[m] for one, m in zip((wrong, right), kept, strict=True)])
    covariance = (logprobs - logprobs.mean()) * (advantages - advantages.mean())
    top = torch.zeros_like(covariance, dtype=torch.bool)
    top[covariance.topk(int(0.2 * len(covariance))).indices] = True
    own = top[: int(kept[0].sum())]
    shift = (wrong.trainer_logprobs - wrong.inference_logprobs)[kept[0]]
    torch.testing.assert_close(loss, (shift.exp() + own * shift.abs()).sum())  # KL-Cov has no clip
    loss.backward()
    assert wrong.trainer_logprobs.grad is not None and right.trainer_logprobs.grad is None


def test_the_oldest_sequences_leave_the_window() -> None:
    recent = RecentTokens(["strategy=[clip_cov]"], 60)
    for seed in range(9):
        recent.loss(sequence(seed, float(seed)))
    assert 40 < sum(map(len, recent._before)) <= 60


def test_a_sequence_without_tokens_still_has_a_gradient() -> None:
    one = sequence(0, 1.0)
    one.loss_mask[:] = False
    loss, _ = RecentTokens(["strategy=[kl_cov]"], 10).loss(one)
    loss.backward()
    assert float(loss.detach()) == 0 and one.trainer_logprobs.grad is not None


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="entropy_bonus needs the policy's entropies, which prime-rl"):
        RecentTokens(["strategy=[entropy_bonus]"], 100)
    with pytest.raises(UsageError, match="window must be at least 1"):
        RecentTokens(["strategy=[]"], 0)
    with pytest.raises(UsageError, match="Did you mean 'kl_cov'"):
        RecentTokens(["strategy=[klcov]"], 100)


def test_the_function_that_prime_rl_imports_keeps_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Outputs:
        loss: Tensor
        metrics: dict[str, Tensor]

    names = "prime_rl", "prime_rl.trainer", "prime_rl.trainer.rl", "prime_rl.trainer.rl.loss"
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules[names[-1]].LossOutputs = Outputs  # type: ignore[attr-defined]
    words = ["strategy=[kl_cov]", "strategy.kl_cov.fraction=0.5"]
    policy_loss(sequence(1, 1.0), words)
    output = policy_loss(sequence(2, -1.0), words)
    alone = RecentTokens(words, 100).loss(sequence(2, -1.0))[0]
    assert float(output.loss.detach()) != float(alone.detach())
    assert set(output.metrics) == {"strategy/kl_cov/changed_fraction", "strategy/kl_cov/coefficient"}
