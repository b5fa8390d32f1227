"""Surrogates that bound the update otherwise than by PPO's clip, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, log
from typing import Any

import pytest
import torch

from ecrl.algorithm import losses, surrogates
from ecrl.algorithm.losses import SurrogateLoss
from ecrl.algorithm.token_batch import TokenBatch
from tests.support.tokens import make_tokens

#: Each by name, with what its random test binds.
ALL: dict[str, dict[str, Any]] = {
    "sapo": {},
    "gmpo": {},
    "dppo": {},
    "dppo_kl": {"divergence": "kl", "limit": 0.05},
    "aspo": {},
    "ce_gppo": {},
    "ce_gppo_neutral": {"below": 0.0, "above": 0.0},
}


def surrogate(name: str) -> Callable[[TokenBatch], SurrogateLoss]:
    function = getattr(surrogates, name.removesuffix("_kl").removesuffix("_neutral"))
    return lambda tokens: function(tokens, **ALL[name])


def backward(loss: torch.Tensor, tokens: TokenBatch) -> tuple[list[float], list[float]]:
    loss.sum().backward()
    assert tokens.logprobs.grad is not None
    return loss.detach().tolist(), tokens.logprobs.grad.tolist()


def test_sapo_fades_on_either_side_of_1() -> None:
    """With τ = 2 and r = 1 ± ½: σ(±1) = 0.731, 0.269; value 2σ, weight of r: 4·σ(1 − σ) = 0.786."""
    tokens = make_tokens([log(1.5), log(0.5), 0.0], [1.0, -2.0, 1.0], old=[0.0] * 3)
    values, gradient = backward(surrogates.sapo(tokens, positive=2.0, negative=2.0).loss, tokens)
    gate, weight = 1 / (1 + exp(-1)), 4 * exp(-1) / (1 + exp(-1)) ** 2
    assert values == pytest.approx([-2 * gate, 4 * (1 - gate), -1.0], abs=1e-6)
    assert gradient == pytest.approx([-weight * 1.5, 2 * weight * 0.5, -1.0], abs=1e-6)


def test_sapo_treats_wrong_tokens_apart() -> None:
    tokens = make_tokens([log(3.0), log(3.0)], [1.0, -1.0], old=[0.0, 0.0])
    _, (right, wrong) = backward(surrogates.sapo(tokens).loss, tokens)
    # 4·σ(1 − σ)·3 at τ·(r − 1) = 2 and 2.1
    assert [-right, wrong] == pytest.approx([12 * exp(x) / (1 + exp(x)) ** 2 for x in (2.0, 2.1)], abs=1e-5)


def test_gmpo_by_hand() -> None:
    """Ratios 4 and 1, clipped at 2 where A > 0: s = √2. The clipped token has no gradient of its own."""
    tokens = make_tokens(
        [log(4.0), 0.0, log(4.0), 0.0], [1.0, 1.0, -1.0, -1.0], old=[0.0] * 4, sequences=[0, 0, 1, 1],
        low=0.5, high=2.0,
    )  # fmt: skip
    result = surrogates.gmpo(tokens)
    values, gradient = backward(result.loss, tokens)
    assert values == pytest.approx([-(2**0.5), -(2**0.5), 2.0, 2.0], abs=1e-6)
    assert gradient == pytest.approx([0.0, -(2**0.5), 2.0, 2.0], abs=1e-6)
    assert result.clipped.tolist() == [True, False, False, False]


def test_dppo_binds_where_probability_moved() -> None:
    """0.5 → 0.7 is beyond 0.15; 0.01 → 0.04 is not, though its ratio is 4. Moving back is never bound."""
    tokens = make_tokens(
        [log(0.7), log(0.04), log(0.3), log(0.3)], [1.0, 1.0, -2.0, 2.0],
        old=[log(0.5), log(0.01), log(0.5), log(0.5)],
    )  # fmt: skip
    result = surrogates.dppo(tokens)
    values, gradient = backward(result.loss, tokens)
    assert values == pytest.approx([-1.4, -4.0, 1.2, -1.2], abs=1e-5)
    assert gradient == pytest.approx([0.0, -4.0, 0.0, -1.2], abs=1e-5)
    assert result.clipped_high is not None and result.clipped_high.tolist() == [True, False, False, False]
    assert result.clipped_low is not None and result.clipped_low.tolist() == [False, False, True, False]


def test_dppo_by_binary_kl() -> None:
    """KL of (½, ½) from (0.6, 0.4) is ½·log(25/24) = 0.0204, from (0.7, 0.3) ½·log(25/21) = 0.0872."""
    tokens = make_tokens([log(0.6), log(0.7)], [1.0, 1.0], old=[log(0.5)] * 2)
    for limit, bound in ((0.0203, [True, True]), (0.0205, [False, True]), (0.0871, [False, True])):
        assert surrogates.dppo(tokens, "kl", limit).clipped.tolist() == bound
    assert not surrogates.dppo(tokens, "kl", 0.0873).clipped.any()
    sure = make_tokens([0.0, 1e-7, -1e-9], [1.0, -1.0, 1.0], old=[0.0, -2.0, -3.0])
    assert surrogates.dppo(sure, "kl").clipped.tolist() == [False, False, True]
    assert not surrogates.dppo(tokens, limit=inf).clipped.any()


def test_aspo_by_hand() -> None:
    """A > 0: 1/r, capped at 3, none above 1.2. A < 0: r, capped at 3, none below 0.8."""
    ratios = [0.5, 0.1, 1.1, 1.5, 1.5, 5.0, 0.5]
    tokens = make_tokens([log(r) for r in ratios], [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0], old=[0.0] * 7)
    result = surrogates.aspo(tokens)
    values, gradient = backward(result.loss, tokens)
    assert values == pytest.approx([-2.0, -3.0, -1 / 1.1, -1 / 1.2, 1.5, 3.0, 0.8], abs=1e-5)
    assert gradient == pytest.approx([-2.0, -3.0, -1 / 1.1, 0.0, 1.5, 3.0, 0.0], abs=1e-5)
    assert result.clipped.tolist() == [False, False, False, True, False, False, True]


def test_ce_gppo_by_hand() -> None:
    """Outside it keeps β·bound: 0.75·0.8 = 0.6 below, 1.2 above."""
    tokens = make_tokens([log(0.5), log(1.5), log(0.5), log(1.1)], [-1.0, 1.0, 1.0, -2.0], old=[0.0] * 4)
    values, gradient = backward(surrogates.ce_gppo(tokens).loss, tokens)
    assert values == pytest.approx([0.6, -1.2, -0.5, 2.2], abs=1e-5)
    assert gradient == pytest.approx([0.6, -1.2, -0.5, 2.2], abs=1e-5)


def test_ce_gppo_without_betas_has_ppos_gradient() -> None:
    gradients = []
    for function in (losses.ppo_clip, surrogate("ce_gppo_neutral")):
        tokens = random_tokens()
        gradients.append(backward(function(tokens).loss, tokens)[1])
    assert gradients[0] == pytest.approx(gradients[1], abs=1e-6)


def random_tokens() -> TokenBatch:
    random = torch.Generator().manual_seed(1)
    count = 400
    old, logprobs = -2 * torch.rand(count, generator=random), -2 * torch.rand(count, generator=random)
    advantages = torch.randn(count // 8, generator=random).repeat_interleave(8)
    sequences = [i // 8 for i in range(count)]
    return make_tokens(logprobs.tolist(), advantages.tolist(), old=old.tolist(), sequences=sequences)


@pytest.mark.parametrize("name", ALL)
def test_a_surrogate_says_which_tokens_have_no_gradient(name: str) -> None:
    tokens = random_tokens()
    result = surrogate(name)(tokens)
    _, gradient = backward(result.loss, tokens)
    assert [x == 0 for x in gradient] == result.clipped.tolist()
    assert bool(result.clipped.any()) == (name not in ("sapo", "ce_gppo"))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("log_ratio", [95.0, -95.0, 1e4])
def test_extreme_ratios_have_finite_gradients(name: str, log_ratio: float) -> None:
    for low, high in ((0.8, 1.2), (0.0, inf)):  # KL-Cov takes the bounds away
        for advantage in (1.0, -1.0):
            tokens = make_tokens(
                [0.0, -1.0], [advantage] * 2, old=[-log_ratio, -1.0], sequences=[0, 1], low=low, high=high
            )
            values, gradient = backward(surrogate(name)(tokens).loss, tokens)
            assert all(abs(x) < inf for x in (*values, *gradient))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sapo", {"positive": 0.0}),
        ("sapo", {"negative": -1.0}),
        ("dppo", {"limit": 0.0}),
        ("dppo", {"divergence": "tw"}),
        ("aspo", {"cap": 1.0}),
        ("ce_gppo", {"below": -0.1}),
        ("ce_gppo", {"above": float("nan")}),
    ],
)
def test_values_out_of_range_are_refused(name: str, settings: dict[str, Any]) -> None:
    (value,) = settings.values()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        getattr(surrogates, name)(random_tokens(), **settings)
