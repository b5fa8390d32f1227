"""The entropic strategies: values computed by hand, and their papers' formulas written out in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ecrl.algorithm.covariance import entropy_discriminant
from ecrl.algorithm.loss_plan import make_loss_plan, planned_loss
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.callbacks import (
    ADAPO,
    CWGRPO,
    EPO,
    OPEFO,
    RLZVP,
    STEER,
    UCAS,
    Archer,
    ClipB,
    Entrocraft,
    EntroPIC,
    EntropyBudget,
    FlexibleClip,
    LpReg,
    PositiveReweighting,
    RepoR,
    TemperatureController,
)
from ecrl.callbacks.lp_reg import NONE, PROXY
from ecrl.callbacks.rl_zvp import UNANIMOUS
from ecrl.callbacks.ucas import CERTAINTY, LOGIT
from ecrl.config.compose import build_config
from ecrl.errors import UsageError
from tests.support.random_tokens import random_tokens
from tests.support.tokens import make_tokens

SEEDS = range(3)


def near(got: Tensor, wanted: list[float]) -> None:
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=got.dtype), atol=1e-6, rtol=0)


def agree(got: Tensor, wanted: list[float]) -> None:
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), atol=1e-12, rtol=1e-10)


def follow(strategy: Any, *entropies: float, first: int = 0) -> list[Any]:
    """The logged coefficient after each rollout, by its entropy; NaN is that of no group."""
    found = []
    config = SimpleNamespace(rollout=SimpleNamespace(temperature=0.5))
    for iteration, entropy in enumerate(entropies, start=first):
        module = SimpleNamespace(policy_entropy=entropy, iteration=iteration, config=config)
        strategy.on_rollout(cast(Any, module), [])
        found.append(strategy.logged_coefficient())
    return found


def walk(seed: int, center: float) -> list[float]:
    """Entropies of twelve rollouts, nats, on both sides of a value."""
    drawn = torch.rand(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * center * drawn).tolist()


def added_loss(strategy: Strategy, tokens: TokenBatch) -> float:
    """What the strategy adds to the loss under the token mean."""
    plan, plain = (make_loss_plan(tokens, Objective(), stack) for stack in ([strategy], []))
    with_it = planned_loss(tokens, plan, Objective(), [strategy])
    return float((with_it - planned_loss(tokens, plain, Objective(), [])).detach())


def rows(tokens: TokenBatch, *names: str) -> list[tuple[float, ...]]:
    """Per token, the fields of these names."""
    return list(zip(*(getattr(tokens, name).tolist() for name in names), strict=True))


FACTS = ("logprobs", "old_logprobs", "entropy", "advantages")


class TestEntroPIC:
    def test_alpha(self) -> None:
        # e = .2, −.1, 1.9: α = .2 + .01·.2, −.1 + .01·.1, 1 (of 1.92)
        assert follow(EntroPIC(), 0.3, 0.0, 2.0) == pytest.approx([0.202, -0.099, 1.0])
        assert follow(EntroPIC(target=3.0), 0.0) == [-1.0]
        assert follow(EntroPIC(), 0.3, math.nan) == pytest.approx([0.202, 0.202])

    def test_penalty(self) -> None:
        strategy = EntroPIC(integral=0.0)
        follow(strategy, 0.6)
        # Sure are tokens 0 and 2; r = e^.02 and 1: −.5·(2·e^.02 + 3)/4.
        tokens = make_tokens([-0.01, -1.0, -0.04, -0.06], [2, 1, -3, 1], old=[-0.03, -1.0, -0.04, -0.06])
        near(strategy.penalty_coefficients(tokens), [-0.5, 0, -0.5, 0])
        assert added_loss(strategy, tokens) == pytest.approx(-(2 * math.exp(0.02) + 3) / 8, abs=1e-6)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens, history = random_tokens(seed).tokens, [0.4, 0.2, 0.05, 0.02]
        strategy = EntroPIC()
        follow(strategy, *history)
        errors = [entropy - 0.1 for entropy in history]
        alpha = max(-1.0, min(1.0, errors[-1] + 0.01 * sum(errors)))
        wanted = sum(
            -alpha * math.exp(new - old) * abs(a)
            for new, old, _, a in rows(tokens, *FACTS)
            if math.exp(new) > 0.95
        )
        assert wanted != 0 and added_loss(strategy, tokens) == pytest.approx(wanted / len(tokens), abs=1e-12)


class TestSTEER:
    def test_weights(self) -> None:
        # π = ½: Ω = A·½·(ln ½ + H): 1·½·(−.6931 + 1) = .1534, 0 where H = ln 2, −.3069 where A is −2.
        log_half = math.log(0.5)
        tokens = make_tokens([log_half] * 3, [1.0, 1.0, -2.0], entropy=[1.0, -log_half, 1.0])
        near(STEER(minimum=0.25).weights(tokens, torch.ones(3)), [0.5, 1.0, 0.25])

    def test_the_floor_keeps_weights_where_nothing_moves(self) -> None:
        # π = ½: Ω = .01·½·.3069 = .001534, so w = .5^(.001534/.02).
        tokens = make_tokens([math.log(0.5)], [0.01], entropy=[1.0])
        near(STEER(minimum=0.5).weights(tokens, torch.ones(1)), [0.5**0.07671320])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        change = [
            abs(a / math.exp(old) * math.exp(new) * (1 - math.exp(new)) * (new + entropy))
            for new, old, entropy, a in rows(tokens, *FACTS)
        ]
        k = -math.log(0.7) / max(*change, 0.02)
        got = STEER().weights(tokens, torch.ones_like(tokens.logprobs))
        agree(got, [math.exp(-k * c) for c in change])
        assert float(got.min()) == pytest.approx(0.7)


class TestRepoR:
    def test_zeta_climbs_falls_and_turns(self) -> None:
        up, down = 0.1, 0.3
        strategy = RepoR(target=0.2, initial=2e-4, maximum=5e-4)
        # Twice up to the limit; down by halves to the smallest, then over to the other side, and back.
        path = follow(strategy, up, up, up, down, down, down, down, down, up, up)
        wanted = [4e-4, 5e-4, 5e-4, 2.5e-4, 1.25e-4, -1e-4, -2e-4, -4e-4, -2e-4, -1e-4]
        assert path == pytest.approx(wanted)
        assert follow(strategy, up) == pytest.approx([1e-4])

    def test_without_a_target_it_is_the_first_entropy(self) -> None:
        assert follow(RepoR(initial=1e-2), 1.0, 0.9, 1.1) == pytest.approx([5e-3, 1e-2, 5e-3])

    def test_advantages(self) -> None:
        strategy = RepoR(target=1.0, initial=0.25, maximum=0.5)
        follow(strategy, 0.5)  # ζ = ½
        # A·(1 + ½·1), A·(1 − ½·1), past 0: none, 0
        tokens = make_tokens([-1.0, -1.0, -3.0, -1.0], [2.0, -2.0, -2.0, 0.0])
        near(strategy.advantages(tokens, tokens.advantages).detach(), [3.0, -1.0, 0.0, 0.0])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        strategy = RepoR(target=1.0, initial=0.1, maximum=0.2)
        follow(strategy, 0.5)
        agree(
            strategy.advantages(tokens, tokens.advantages),
            [
                max(a * (1 - 0.2 * new), 0.0) if a > 0 else min(a * (1 + 0.2 * new), 0.0)
                for new, a in rows(tokens, "logprobs", "advantages")
            ],
        )


class TestADAPO:
    def test_room(self) -> None:
        strategy = ADAPO(target=0.2, factor=2.0, maximum=3.0)
        tokens = make_tokens([-1.0], [1.0], high=1.3)
        assert follow(strategy, 0.1, 0.1, 0.3, 0.3, 0.3) == pytest.approx([2.0, 3.0, 1.5, 0.75, 0.5])
        low, high = strategy.ratio_bounds(tokens, tokens.low, tokens.high)
        near(high, [1.15])
        assert low is tokens.low

    def test_without_a_target_it_is_the_first_entropy(self) -> None:
        assert follow(ADAPO(factor=2.0), 1.0, 0.9, 0.9) == pytest.approx([0.5, 1.0, 2.0])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        """The exponent of 1.1 counts rollouts below the target less those above, within its limits."""
        tokens, history = random_tokens(seed).tokens, walk(seed, 0.3)
        strategy = ADAPO(target=0.3, minimum=0.0, maximum=10.0)
        follow(strategy, *history)
        room = 1.1 ** sum(1 if entropy < 0.3 else -1 for entropy in history)
        low, high = strategy.ratio_bounds(tokens, tokens.low, tokens.high)
        agree(high, [1 + room * (bound - 1) for bound in tokens.high.tolist()])
        assert torch.equal(low, tokens.low)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_discriminant_tells_how_the_entropy_moves(seed: int) -> None:
    tokens, distributions = random_tokens(seed, sharpness=1.0)
    bumped = distributions.scatter_add(
        1, tokens.token_ids[:, None], torch.full((len(tokens), 1), 1e-6).double()
    )
    after = bumped.log_softmax(1)
    change = -(after.exp() * after).sum(1) - tokens.entropy
    torch.testing.assert_close(change / 1e-6, -entropy_discriminant(tokens), atol=1e-5, rtol=1e-5)


class TestOPEFO:
    def test_weights(self) -> None:
        # S = ½·(ln ½ + H): .25, −.25, .5; ΔH = −.25, .25, −1: D = 1.25, I = .25, λ = ⅔.
        entropy = [0.5 + math.log(2), -0.5 + math.log(2), 1 + math.log(2)]
        tokens = make_tokens([math.log(0.5)] * 3, [1.0, 1.0, 2.0], entropy=entropy)
        near(OPEFO().weights(tokens, torch.ones(3)).detach(), [1 / 3, 5 / 3, 1 / 3])
        near(OPEFO(strength=0.5).weights(tokens, torch.ones(3)).detach(), [2 / 3, 4 / 3, 2 / 3])
        # Without the last token, which is clipped or has no weight, both sides flow alike.
        clipped = replace(tokens, clipped=torch.tensor([False, False, True]))
        near(OPEFO().weights(clipped, torch.ones(3)).detach(), [1, 1, 1])
        near(OPEFO().weights(tokens, torch.tensor([1.0, 1.0, 0.0])).detach(), [1, 1, 0])

    def test_nothing_flows_where_no_advantage_is(self) -> None:
        near(OPEFO().weights(make_tokens([-1.0, -2.0], [0.0, 0.0]), torch.ones(2)).detach(), [1, 1])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        change = [-a * math.exp(new) * (new + h) for new, _, h, a in rows(tokens, *FACTS)]
        rising, falling = sum(c for c in change if c > 0), -sum(c for c in change if c < 0)
        scale = (falling - rising) / (falling + rising)
        got = OPEFO().weights(tokens, torch.ones_like(tokens.logprobs))
        agree(got, [1 + scale if c > 0 else 1 - scale for c in change])
        balanced = [w * c for w, c in zip(got.tolist(), change, strict=True)]
        assert sum(balanced) == pytest.approx(0, abs=1e-12)


class TestClipB:
    def test_weights(self) -> None:
        # π = ½: S = ½·(H − ln 2) = 0, 0, 0, −1: mean −.25, σ = √3/4; the last is 1.732 σ below.
        entropy = [math.log(2)] * 3 + [math.log(2) - 2]
        tokens = make_tokens([math.log(0.5)] * 4, [-1.0] * 4, entropy=entropy)
        near(ClipB(mu=1.7).weights(tokens, torch.full((4,), 2.0)), [2, 2, 2, 0])
        near(ClipB(mu=1.8).weights(tokens, torch.ones(4)), [1, 1, 1, 1])
        right = replace(tokens, advantages=torch.ones(4))
        near(ClipB(mu=1.7).weights(right, torch.ones(4)), [1, 1, 1, 1])

    def test_twins_have_no_spread(self) -> None:
        near(ClipB(mu=0.0).weights(make_tokens([-1.0] * 3, [-1.0] * 3), torch.ones(3)), [1, 1, 1])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        signal = [math.exp(new) * (h + new) for new, h in rows(tokens, "logprobs", "entropy")]
        limit = fmean(signal) - 0.1 * pstdev(signal)
        wanted = [
            float(not (s < limit and a < 0)) for s, a in zip(signal, tokens.advantages.tolist(), strict=True)
        ]
        got = ClipB(mu=0.1).weights(tokens, torch.ones_like(tokens.logprobs))
        assert 0 < sum(wanted) < len(wanted) and got.tolist() == wanted


class TestCWGRPO:
    def test_advantages(self) -> None:
        # Mean logπ −2, mean A 0: c = 2, −1, −1, 2; mean ½, σ = 1.5; kernel e^−(8/9), e^−(2/9).
        tokens = make_tokens([0.0, -1.0, -3.0, -4.0], [1.0, -1.0, 1.0, -1.0])
        far, close = math.exp(-8 / 9), math.exp(-2 / 9)
        mean = (far + close) / 2
        got = CWGRPO().advantages(tokens, tokens.advantages).detach()
        near(got, [far / mean, -close / mean, close / mean, -far / mean])

    def test_twins_keep_their_advantage(self) -> None:
        tokens = make_tokens([-1.0] * 3, [2.0] * 3)
        near(CWGRPO().advantages(tokens, tokens.advantages).detach(), [2.0] * 3)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        pairs = rows(tokens, "logprobs", "advantages")
        mean_logprob, mean_advantage = fmean(p for p, _ in pairs), fmean(a for _, a in pairs)
        covariance = [(p - mean_logprob) * (a - mean_advantage) for p, a in pairs]
        sigma = pstdev(covariance)
        kernel = [math.exp(-(c**2) / (2 * sigma**2)) for c in covariance]
        total = sum(kernel)
        wanted = [a * k * len(pairs) / total for (_, a), k in zip(pairs, kernel, strict=True)]
        agree(CWGRPO().advantages(tokens, tokens.advantages), wanted)


class TestEntrocraft:
    tokens = make_tokens([-1.0] * 3, [2.0, -3.0, 0.0])

    def test_rejects_one_sign_outside_the_band(self) -> None:
        strategy = Entrocraft()
        for entropy, wanted in [(0.59, [0, -3, 0]), (0.65, [2, -3, 0]), (0.71, [2, 0, 0])]:
            follow(strategy, entropy)
            near(strategy.advantages(self.tokens, self.tokens.advantages), wanted)

    def test_the_band_falls(self) -> None:
        # Halfway it is [.5, .6], at the end and after it [.4, .5].
        for iteration, entropies, wanted in [
            (5, [0.49, 0.51, 0.59, 0.61], [1, 0, 0, -1]),
            (10, [0.39, 0.41, 0.49, 0.51], [1, 0, 0, -1]),
            (99, [0.39, 0.41, 0.49, 0.51], [1, 0, 0, -1]),
        ]:
            assert [follow(Entrocraft(by=10), h, first=iteration)[0] for h in entropies] == wanted

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        seen = set()
        for t, entropy in enumerate(walk(seed, 0.55)):
            strategy = Entrocraft(by=12)
            follow(strategy, entropy, first=t)
            low, high = 0.6 + (0.4 - 0.6) * t / 12, 0.7 + (0.5 - 0.7) * t / 12
            wrong_only, right_only = entropy < low, entropy > high
            wanted = [
                0.0 if (wrong_only and a > 0) or (right_only and a < 0) else a
                for a in tokens.advantages.tolist()
            ]
            agree(strategy.advantages(tokens, tokens.advantages), wanted)
            seen.add((wrong_only, right_only))
        assert len(seen) >= 2


class TestArcher:
    def test_hesitating_tokens_are_free(self) -> None:
        tokens = make_tokens(
            [-1.0] * 6, [1.0] * 6, sequences=[0] * 5 + [1], entropy=[0.1, 0.5, 0.2, 0.3, 0.4, 9.0]
        )
        low, high = Archer().ratio_bounds(tokens, tokens.low, tokens.high)
        near(low, [0.8, 0.5, 0.8, 0.8, 0.8, 0.8])
        near(high, [1.2, 1.5, 1.2, 1.2, 1.2, 1.2])
        near(Archer().penalty_coefficients(tokens), [1e-3, 0, 1e-3, 1e-3, 1e-3, 1e-3])
        near(Archer(wide=9.0).ratio_bounds(tokens, tokens.low, tokens.high)[0], [0.8, 0, 0.8, 0.8, 0.8, 0.8])

    @pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 1.0])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int, fraction: float) -> None:
        """Above the quantile of the own response, as interpolated."""
        tokens = random_tokens(seed).tokens
        chosen = []
        for sequence in range(tokens.num_sequences):
            entropy = tokens.entropy[tokens.sequence_ids == sequence]
            chosen += (entropy > torch.quantile(entropy, 1 - fraction)).tolist()
        assert tokens.top_of_sequences(tokens.entropy, fraction).tolist() == chosen


def test_twins_of_a_sequence_are_drawn_by_hash() -> None:
    entropy = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    tokens = make_tokens([-1.0] * 6, [1.0] * 6, entropy=entropy)
    marked = set()
    for key in range(20):
        keyed = replace(tokens, key=key)
        top = keyed.top_of_sequences(keyed.entropy, 0.4)
        assert int(top.sum()) == 2 and not top[3:].any()
        rounded = keyed.entropy + 1e-6 * torch.randn(6, generator=torch.Generator().manual_seed(key))
        assert torch.equal(keyed.top_of_sequences(rounded, 0.4), top)
        marked |= set(top.nonzero().flatten().tolist())
    assert marked == {0, 1, 2}


class TestPositiveReweighting:
    def test_lambda(self) -> None:
        assert follow(PositiveReweighting(), 0.3, 0.1, 0.1, 0.2) == pytest.approx([1.0, 0.95, 0.9, 0.95])
        assert follow(PositiveReweighting(initial=0.05, delta=0.1), 0.1) == [0.0]

    def test_weights(self) -> None:
        strategy = PositiveReweighting(delta=0.25)
        follow(strategy, 0.1)
        tokens = make_tokens([-1.0] * 3, [1.0, -1.0, 0.0])
        near(strategy.weights(tokens, torch.tensor([2.0, 2.0, 2.0])), [1.5, 2, 2])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens, history = random_tokens(seed).tokens, walk(seed, 0.2)
        strategy = PositiveReweighting(initial=0.5)
        follow(strategy, *history)
        lam = 0.5
        for entropy in history:
            lam = lam - 0.05 if entropy < 0.2 else lam + 0.05
            lam = 0.0 if lam < 0 else 1.0 if lam > 1 else lam
        wanted = [lam if a > 0 else 1.0 for a in tokens.advantages.tolist()]
        agree(strategy.weights(tokens, torch.ones_like(tokens.advantages)), wanted)


class TestEPO:
    def test_penalty(self) -> None:
        strategy = EPO(coefficient=0.2, smoothing=0.5)
        follow(strategy, 0.5, 1.5)  # mean 1, band [.5, 1.5]
        tokens = make_tokens([-1.0] * 3, [0.0] * 3, entropy=[0.1, 1.0, 3.5])
        # .1 − ½·.4, 1, 3.5 − ½·2
        near(strategy.penalty(tokens).detach(), [-0.1, 1.0, 2.5])
        near(torch.autograd.grad(strategy.penalty(tokens).sum(), tokens.entropy)[0], [1.5, 1.0, 0.5])
        assert added_loss(strategy, tokens) == pytest.approx(-0.2 * 3.4 / 3, abs=1e-6)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_formula(self, seed: int) -> None:
        tokens, history = random_tokens(seed).tokens, [0.9, 0.3, 0.4]
        strategy = EPO()
        follow(strategy, *history)
        mean = fmean(history)
        outside = [max(0.5 * mean - h, h - 1.5 * mean, 0.0) for h in tokens.entropy.tolist()]
        wanted = [h - 0.1 * d for h, d in zip(tokens.entropy.tolist(), outside, strict=True)]
        agree(strategy.penalty(tokens), wanted)


class TestFlexibleClip:
    @staticmethod
    def bounds(tokens: TokenBatch, done: int, **knobs: Any) -> tuple[Tensor, Tensor, float]:
        strategy = FlexibleClip(by=10, **knobs)
        (mixture,) = follow(strategy, 0.5, first=done)
        return *strategy.ratio_bounds(tokens, tokens.low, tokens.high), mixture

    def test_bounds(self) -> None:
        tokens = make_tokens([-1.0] * 2, [1.0] * 2, old=[-50.0, 0.0])  # probabilities 0 and 1
        low, high, _ = self.bounds(tokens, 0)
        near(high, [1.3, 1.3 / 1.2])  # ε(π) = .2·(1.5 − π) = .3 at 0
        near(low, [0.8, 0.8])
        low, high, _ = self.bounds(tokens, 6)  # a tenth of the second half is done: m = .8
        near(low, [1 - 0.2 * 1.4, (1 - 0.2 * 1.4) / (1 - 0.2 * 0.8)])
        near(high, [1.2, 1.2])
        for done in (10, 11):
            low, high, mixture = self.bounds(tokens, done)
            assert mixture == 0 and low is tokens.low and high is tokens.high

    @pytest.mark.parametrize("done", [0, 3, 5, 7])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int, done: int) -> None:
        """A ratio on a bound is as far from 1 as ε allows at the probability that it leads to."""
        tokens = random_tokens(seed).tokens
        low, high, mixture = self.bounds(tokens, done)
        weight = abs(1 - 2 * done / 10) if done <= 5 else 1 - abs(1 - 2 * done / 10)
        assert abs(mixture) == pytest.approx(weight)
        moved = high if done <= 5 else low
        for bound, old in zip(moved.tolist(), tokens.old_logprobs.tolist(), strict=True):
            probability = bound * math.exp(old)
            allowed = weight * 0.2 * (1.5 - probability) + (1 - weight) * 0.2
            assert bound == pytest.approx(1 + allowed if done <= 5 else 1 - allowed, abs=1e-12)


class TestRLZVP:
    def test_advantages(self) -> None:
        verdict = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0, 0.0])
        tokens = make_tokens(
            [-1.0] * 6, [0.0] * 5 + [7.0], sequences=[0, 0, 1, 1, 2, 3],
            entropy=[1.0, 0.2, 0.5, 2.0, 3.0, 1.0], unanimous=verdict,
        )  # fmt: skip
        got = RLZVP(alpha=0.5).advantages(tokens, tokens.advantages).detach()
        near(got, [0.5, 0.1, -0.75, 0.0, 0.0, 7.0])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        verdicts = {0: 1.0, 1: -1.0, 2: 0.0}
        verdict = torch.tensor([verdicts[g] for g in tokens.group_ids.tolist()], dtype=torch.float64)
        tokens = replace(tokens, columns={UNANIMOUS: verdict})
        peak = {
            s: max(h for t, h in rows(tokens, "sequence_ids", "entropy") if t == s)
            for s in range(tokens.num_sequences)
        }
        wanted = [
            {1.0: 0.1 * h, -1.0: -0.1 * (peak[int(s)] - h), 0.0: a}[verdicts[int(g)]]
            for s, g, h, a in rows(tokens, "sequence_ids", "group_ids", "entropy", "advantages")
        ]
        agree(RLZVP().advantages(tokens, tokens.advantages), wanted)

    def test_which_groups_are_unanimous(self) -> None:
        batch = SimpleNamespace(
            rewards=torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.5]),
            group_ids=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]),
            sequence_ids=torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7]),
        )
        near(RLZVP().extra_columns(cast(Any, batch))[UNANIMOUS], [1, 1, 1, -1, -1, 0, 0, 0, 0])


class TestLpReg:
    def test_which_tokens_are_shielded(self) -> None:
        # Of the first four, which are wrong, 0 and 2 are the least likely; below its proxy is 0 alone.
        proxy = torch.tensor([-3.0, -0.1, NONE, -0.1, -0.1])
        tokens = make_tokens([-4.0, -1.0, -9.0, -0.5, -8.0], [-1.0] * 4 + [1.0], proxy_logprobs=proxy)
        strategy = LpReg(fraction=0.5, coefficient=2.0)
        near(strategy.penalty_coefficients(tokens), [2, 0, 0, 0, 0])
        # x = −1: e − 2, with gradient 1 − e
        near(strategy.penalty(tokens)[:1].detach(), [math.e - 2])
        near(torch.autograd.grad(strategy.penalty(tokens)[0], tokens.logprobs)[0], [1 - math.e, 0, 0, 0, 0])
        assert added_loss(strategy, tokens) == pytest.approx(2 * (math.e - 2) / 5, abs=1e-6)
        right = replace(tokens, advantages=torch.ones(5))
        near(strategy.penalty_coefficients(right), [0] * 5)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        """The proxy from whole distributions, the choice by sorting."""
        tokens, distributions = random_tokens(seed)
        kept = distributions.exp() >= 0.02 * distributions.exp().amax(1, keepdim=True)
        proxy = (distributions.exp() * kept / (distributions.exp() * kept).sum(1, keepdim=True)).log()
        proxy = (proxy.gather(1, tokens.token_ids[:, None]).squeeze(1) + 0.2).clamp(min=NONE)
        tokens = replace(tokens, columns={PROXY: proxy})
        wrong = sorted((p, i) for i, (p, a) in enumerate(rows(tokens, "logprobs", "advantages")) if a < 0)
        chosen = {i for p, i in wrong[: int(0.4 * len(wrong))] if p < proxy[i]}
        wanted = [float(i in chosen) for i in range(len(tokens))]
        strategy = LpReg(fraction=0.4)
        assert sum(wanted) > 0 and strategy.penalty_coefficients(tokens).tolist() == wanted
        x = tokens.logprobs - proxy
        near = x.abs() < 20
        torch.testing.assert_close(strategy.penalty(tokens)[near], (torch.exp(-x) - 1 + x)[near])


class TestUCAS:
    def test_advantages(self) -> None:
        certainty, logit = torch.tensor([1.0, -1.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.5, 1.0])
        tokens = make_tokens([-1.0] * 4, [2.0, 2.0, -2.0, 0.01], certainty=certainty, scaled_logit=logit)
        wanted = [2 * math.exp(-0.25), 2 * math.exp(0.25) - 0.05, -2 * math.exp(0.35) - 0.025, 0.0]
        near(UCAS().advantages(tokens, tokens.advantages), wanted)

    def test_columns(self) -> None:
        """Sums 3, 5 and 7 of a group have the deviation 2; a group of one has none."""
        facts = torch.tensor([1.0, 2.0, 5.0, 7.0, 9.0]), torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0])
        asked = []

        def measure(batch: Any, keep: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
            asked.append(batch)
            return *facts, facts[0]

        scorer = SimpleNamespace(vocabulary_facts=measure)
        batch = Measured(torch.tensor([0, 0, 1, 2, 3]), torch.tensor([7, 7, 7, 3]))
        for strategy in (UCAS(positive=0, negative=0, logit=0), UCAS()):
            strategy.setup(cast(Any, None), cast(Any, SimpleNamespace(scorer=scorer)), "fit")
            columns = strategy.extra_columns(cast(Any, batch))
        assert asked == [batch]
        torch.testing.assert_close(
            columns[CERTAINTY], torch.tensor([-1.0, -1.0, 0.0, 1.0, 0.0]), atol=1e-5, rtol=0
        )
        near(columns[LOGIT], [0, 0.25, 0.5, 0.75, 1])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        tokens = random_tokens(seed).tokens
        z, logit = tokens.entropy - 0.5, tokens.logprobs.exp()
        tokens = replace(tokens, columns={CERTAINTY: z, LOGIT: logit})
        wanted = []
        for a, u, x in zip(tokens.advantages.tolist(), z.tolist(), logit.tolist(), strict=True):
            value = a * math.exp(-0.25 * u if a > 0 else 0.35 * u) - 0.05 * x
            wanted.append(max(value, 0.0) if a > 0 else value)
        agree(UCAS().advantages(tokens, tokens.advantages), wanted)


@dataclass(frozen=True)
class Measured:
    """What UCAS reads of a rollout batch."""

    sequence_ids: Tensor
    group_ids: Tensor

    def __len__(self) -> int:
        return len(self.group_ids)


class TestTemperatureController:
    def test_temperature(self) -> None:
        strategy = TemperatureController()
        assert follow(strategy, 0.4, 0.9, 0.1, math.nan) == pytest.approx([1.1, 0.8, 1.2, 1.2])
        module: Any = SimpleNamespace(
            policy_entropy=0.4, config=SimpleNamespace(rollout=SimpleNamespace(temperature=0.5))
        )
        strategy.on_rollout(module, [])
        assert module.temperature == pytest.approx(0.55)
        again = TemperatureController()
        again.load_state_dict(strategy.state_dict())
        del module.temperature
        again.on_train_start(cast(Any, None), module)
        assert module.temperature == pytest.approx(0.55)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_agrees_with_its_paper(self, seed: int) -> None:
        history = walk(seed, 0.5)
        wanted = [0.8 if 1.5 - h < 0.8 else 1.2 if 1.5 - h > 1.2 else 1.5 - h for h in history]
        assert len({*wanted} - {0.8, 1.2}) > 1
        assert follow(TemperatureController(), *history) == pytest.approx(wanted, abs=1e-12)

    def test_two_hands_on_the_temperature_are_refused(self) -> None:
        strategy, budget = TemperatureController(), EntropyBudget(knob="rollout.temperature", maximum=2.0)
        strategy.name, budget.name = "controller", "budget"
        for rival in (TemperatureController(), budget):
            with pytest.raises(UsageError, match=r"both move rollout\.temperature"):
                strategy.check(cast(Any, None), [rival])


@pytest.mark.parametrize(
    ("strategy", "kwargs"),
    [
        (EntroPIC, {"target": 0.0}),
        (EntroPIC, {"proportional": -1.0}),
        (EntroPIC, {"integral": math.inf}),
        (EntroPIC, {"threshold": 1.0}),
        (STEER, {"minimum": 0.0}),
        (STEER, {"minimum": 1.1}),
        (RepoR, {"target": -1.0}),
        (RepoR, {"minimum": -0.1}),
        (RepoR, {"maximum": 1e-5}),
        (RepoR, {"initial": 0.06}),
        (ADAPO, {"target": 0.0}),
        (ADAPO, {"factor": 0.9}),
        (ADAPO, {"minimum": 1.1}),
        (ADAPO, {"maximum": 0.9}),
        (OPEFO, {"strength": 1.1}),
        (ClipB, {"mu": -0.1}),
        (CWGRPO, {"width": 0.0}),
        (Entrocraft, {"low": -0.1}),
        (Entrocraft, {"low": 0.8}),
        (Entrocraft, {"high_end": 0.4}),
        (Entrocraft, {"by": 0}),
        (Archer, {"fraction": 1.1}),
        (Archer, {"wide": -0.1}),
        (Archer, {"coefficient": -0.1}),
        (PositiveReweighting, {"target": 0.0}),
        (PositiveReweighting, {"delta": 1.1}),
        (PositiveReweighting, {"initial": -0.1}),
        (EPO, {"coefficient": -0.1}),
        (EPO, {"smoothing": -0.1}),
        (EPO, {"low": 1.5}),
        (EPO, {"high": math.inf}),
        (FlexibleClip, {"offset": -0.1}),
        (FlexibleClip, {"slope": -1.6}),
        (FlexibleClip, {"by": 0}),
        (RLZVP, {"alpha": -0.1}),
        (LpReg, {"fraction": 1.1}),
        (LpReg, {"keep": 0.0}),
        (LpReg, {"coefficient": -1.0}),
        (UCAS, {"positive": -0.1}),
        (UCAS, {"negative": math.inf}),
        (UCAS, {"logit": -0.1}),
        (TemperatureController, {"target": 0.0}),
        (TemperatureController, {"gain": -1.0}),
        (TemperatureController, {"low": 0.0}),
        (TemperatureController, {"high": 0.9}),
    ],
)
def test_values_out_of_range_are_refused(strategy: type[Strategy], kwargs: dict[str, Any]) -> None:
    ((knob, value),) = kwargs.items()
    with pytest.raises(ValueError, match=f"{strategy.__name__}.*{knob}.*{value}") as refusal:
        strategy(**kwargs)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "strategy",
    [
        EntroPIC(proportional=0, integral=0),
        STEER(minimum=1),
        RepoR(initial=0, minimum=0, maximum=0),
        ADAPO(factor=1),
        OPEFO(strength=0),
        ClipB(mu=None),
        CWGRPO(width=None),
        Archer(wide=1, coefficient=0),
        PositiveReweighting(delta=0),
        EPO(coefficient=0),
        FlexibleClip(offset=1, slope=0),
        RLZVP(alpha=0),
        LpReg(coefficient=0),
        UCAS(positive=0, negative=0, logit=0),
        TemperatureController(gain=0),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_inert_settings_warn(strategy: Strategy) -> None:
    (warning,) = strategy.check(build_config(["objective=dapo"]), [])
    assert "does nothing" in warning
    unfiltered = build_config(["objective=gspo"])
    assert type(strategy)().check(unfiltered, []) == []
    if isinstance(strategy, (ADAPO, FlexibleClip)):
        assert strategy.needs_updates
        assert "reinforce" in type(strategy)().check(build_config(["objective=rloo"]), [])[0]


def test_rl_zvp_says_that_its_groups_are_left_out() -> None:
    (warning,) = RLZVP().check(build_config(["objective=grpo"]), [])
    assert warning.endswith("objective.filters.drop_zero_variance=false.")
