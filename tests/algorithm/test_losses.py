"""Surrogates and aggregations against numbers worked out by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from ecrl.algorithm import losses
from tests.support.tokens import make_tokens

LOG2 = log(2.0)


def values(tensor: torch.Tensor) -> list[float]:
    return tensor.detach().tolist()


def test_ppo_clip_cuts_only_where_the_gain_is_already_taken() -> None:
    # ratios 1.5 and 0.5, bounds 0.8 to 1.2
    tokens = make_tokens(
        [log(1.5), log(0.5), log(1.5), log(0.5)], [1.0, 1.0, -1.0, -1.0], old=[0.0, 0.0, 0.0, 0.0]
    )
    # A>0: −min(r, clip) → −1.2, −0.5;  A<0: max(r, clip) → 1.5, 0.8
    assert values(losses.ppo_clip(tokens).loss) == pytest.approx([-1.2, -0.5, 1.5, 0.8], abs=1e-6)
    losses.ppo_clip(tokens).loss.sum().backward()
    # d(−A·r)/dlogπ = −A·r where not clipped, else 0
    assert values(tokens.logprobs.grad) == pytest.approx([0.0, -0.5, 1.5, 0.0], abs=1e-6)
    assert losses.ppo_clip(tokens).clipped.tolist() == [True, False, False, True]


def test_a_ratio_on_a_bound_keeps_its_gradient() -> None:
    """With a bound of 0 the first update's ratios of 1 lie on it."""
    tokens = make_tokens([-1.0, -1.0], [2.0, -3.0], low=1.0, high=1.0)
    surrogate = losses.ppo_clip(tokens)
    surrogate.loss.sum().backward()
    assert values(tokens.logprobs.grad) == [-2.0, 3.0] and not surrogate.clipped.any()


def test_ppo_bounds_are_asymmetric_and_per_token() -> None:
    tokens = make_tokens([log(1.25), log(1.25)], [1.0, 1.0], old=[0.0, 0.0])
    tokens.high[1] = 1.28
    assert values(losses.ppo_clip(tokens).loss) == pytest.approx([-1.2, -1.25], abs=1e-6)


def test_dual_clip_bounds_the_loss_of_negative_advantages_only() -> None:
    tokens = make_tokens([log(5.0), log(5.0)], [-2.0, 2.0], old=[0.0, 0.0])
    assert values(losses.ppo_clip(tokens).loss) == pytest.approx([10.0, -2.4], abs=1e-5)
    assert values(losses.ppo_clip(tokens, dual_clip=3.0).loss) == pytest.approx([6.0, -2.4], abs=1e-5)


def test_reinforce_is_minus_advantage_times_logprob() -> None:
    tokens = make_tokens([-0.5, -2.0], [2.0, -1.0])
    loss = losses.reinforce(tokens).loss
    assert values(loss) == pytest.approx([1.0, -2.0], abs=1e-6)
    loss.sum().backward()
    assert values(tokens.logprobs.grad) == pytest.approx([-2.0, 1.0], abs=1e-6)


def test_gspo_uses_the_geometric_mean_ratio_of_the_sequence() -> None:
    # sequence 0: log-ratios log 2 and 0 → s = √2; sequence 1: one token, ratio 0.5
    tokens = make_tokens(
        [LOG2, 0.0, -LOG2], [1.0, 1.0, 1.0], old=[0.0, 0.0, 0.0], sequences=[0, 0, 1], low=0.0, high=9.0
    )
    loss = losses.gspo(tokens).loss
    assert values(loss) == pytest.approx([-(2**0.5), -(2**0.5), -0.5], abs=1e-6)
    (loss * losses.sequence_mean(tokens)).sum().backward()
    # L = ½·(−s0) + ½·(−s1); ds0/dlogπ_t = s0/2, ds1 = s1
    assert values(tokens.logprobs.grad) == pytest.approx([-(2**0.5) / 4, -(2**0.5) / 4, -0.25], abs=1e-6)


def test_gspo_clips_whole_sequences() -> None:
    tokens = make_tokens([LOG2, LOG2], [1.0, 1.0], old=[0.0, 0.0], high=1.0004)
    loss = losses.gspo(tokens).loss
    assert values(loss) == pytest.approx([-1.0004, -1.0004], abs=1e-6)
    loss.sum().backward()
    assert values(tokens.logprobs.grad) == [0.0, 0.0]


def test_cispo_clips_the_weight_but_keeps_the_gradient() -> None:
    tokens = make_tokens([log(4.0), log(0.5)], [1.0, -1.0], old=[0.0, 0.0], low=0.0, high=2.0)
    loss = losses.cispo(tokens).loss
    assert values(loss) == pytest.approx([-2.0 * log(4.0), 0.5 * log(0.5)], abs=1e-6)
    loss.sum().backward()
    assert values(tokens.logprobs.grad) == pytest.approx([-2.0, 0.5], abs=1e-6)


def test_aggregations_weigh_tokens_as_named() -> None:
    tokens = make_tokens([0.0] * 4, [0.0] * 4, sequences=[0, 0, 0, 1])
    assert values(losses.token_mean(tokens)) == pytest.approx([0.25] * 4)
    assert values(losses.sequence_mean(tokens)) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert values(losses.constant(tokens, length=10.0)) == pytest.approx([0.05] * 4)


def test_kl_estimators() -> None:
    x = torch.tensor([LOG2, -LOG2])
    assert values(losses.kl_abs(x)) == pytest.approx([LOG2, LOG2], abs=1e-6)
    assert values(losses.kl_k2(x)) == pytest.approx([0.5 * LOG2**2] * 2, abs=1e-6)
    # exp(−x) − 1 + x: ½ − 1 + log 2 and 2 − 1 − log 2
    assert values(losses.kl_k3(x)) == pytest.approx([exp(-LOG2) - 1 + LOG2, 1 - LOG2], abs=1e-6)


def test_a_token_of_a_gspo_sequence_has_its_own_gradient() -> None:
    """Weight 0 on the first token leaves the second's gradient, −A·s·u = −√2/2, and no other."""
    tokens = make_tokens([LOG2, 0.0], [1.0, 1.0], old=[0.0, 0.0], low=0.0, high=9.0)
    weights = torch.tensor([0.0, 1.0])
    (weights * losses.gspo(tokens).loss * losses.sequence_mean(tokens)).sum().backward()
    assert values(tokens.logprobs.grad) == pytest.approx([0.0, -(2**0.5) / 2], abs=1e-6)


def test_gspo_equals_its_sequence_form_where_a_sequence_has_one_advantage() -> None:
    random = torch.Generator().manual_seed(0)
    logprobs, old = (-torch.rand(12, generator=random) for _ in range(2))
    sequences = [0] * 3 + [1] * 5 + [2] * 4
    advantages = [1.0] * 3 + [-0.5] * 5 + [0.25] * 4
    tokens = make_tokens(
        logprobs.tolist(), advantages, old=old.tolist(), sequences=sequences, low=0.9, high=1.1
    )
    (losses.gspo(tokens).loss * losses.sequence_mean(tokens)).sum().backward()
    leaf = tokens.logprobs.detach().clone().requires_grad_()
    ratio = tokens.per_sequence_mean(leaf - tokens.old_logprobs).exp()
    advantage = tokens.per_sequence_mean(tokens.advantages)
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.9, 1.1)).mean()
    loss.backward()
    assert torch.allclose(tokens.logprobs.grad, leaf.grad, atol=1e-7)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ppo_clip", "gspo", "cispo", "reinforce"])
def test_a_surrogate_says_which_tokens_have_no_gradient(name: str) -> None:
    random = torch.Generator().manual_seed(1)
    count = 400
    old, logprobs = -2 * torch.rand(count, generator=random), -2 * torch.rand(count, generator=random)
    advantages = torch.randn(count, generator=random)
    tokens = make_tokens(
        logprobs.tolist(), advantages.tolist(), old=old.tolist(), sequences=[i // 8 for i in range(count)]
    )
    result = getattr(losses, name)(tokens)
    result.loss.sum().backward()
    assert torch.equal(tokens.logprobs.grad == 0, result.clipped)
    assert bool(result.clipped.any()) == (name in ("ppo_clip", "gspo"))


def test_dual_clip_counts_as_clipped() -> None:
    tokens = make_tokens([log(5.0), log(5.0)], [-2.0, 2.0], old=[0.0, 0.0])
    result = losses.ppo_clip(tokens, dual_clip=3.0)
    result.loss.sum().backward()
    assert result.clipped.tolist() == [True, True] and values(tokens.logprobs.grad) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["ppo_clip", "gspo", "cispo"])
@pytest.mark.parametrize("log_ratio", [95.0, -95.0, 1e4])
def test_extreme_ratios_have_finite_gradients(name: str, log_ratio: float) -> None:
    for advantage in (1.0, -1.0):
        tokens = make_tokens([0.0, -1.0], [advantage] * 2, old=[-log_ratio, -1.0], sequences=[0, 1])
        getattr(losses, name)(tokens).loss.sum().backward()
        assert torch.isfinite(tokens.logprobs.grad).all()  # type: ignore[arg-type]
    x = torch.tensor([log_ratio], requires_grad=True)
    losses.kl_k3(x).sum().backward()
    assert torch.isfinite(losses.kl_k3(x)).all() and torch.isfinite(x.grad).all()  # type: ignore[arg-type]


def test_sequence_sum_adds_up_the_log_probability_of_a_response() -> None:
    tokens = make_tokens([-1.0, -2.0, -3.0], [1.0, 1.0, -1.0], sequences=[0, 0, 1])
    loss = (losses.reinforce(tokens).loss * losses.sequence_sum(tokens)).sum()
    assert float(loss) == pytest.approx(0.5 * (3.0 - 3.0))  # −A·log π(y|x): 3 and −3, mean over 2 responses
    assert values(losses.sequence_sum(tokens)) == [0.5] * 3
