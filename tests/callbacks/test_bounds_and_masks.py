"""Strategies that set the ratio's bounds or mask tokens: values by hand, and second implementations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import check_stack
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.callbacks import (
    BalancedClip,
    ClipCov,
    ClipHigher,
    DynamicClip,
    EntropyRatioClip,
    KLCov,
    SequenceMask,
)
from ecrl.errors import UsageError
from tests.support.tokens import batch, config, near


def random_tokens(seed: int) -> TokenBatch:
    """40 tokens of 8 responses in float64, moved by 0.4."""
    random = torch.Generator().manual_seed(seed)
    count = 40
    old = -3 * torch.rand(count, generator=random, dtype=torch.float64)
    moved = old + 0.4 * torch.randn(count, generator=random, dtype=torch.float64)
    advantages = torch.randn(8, generator=random, dtype=torch.float64).repeat_interleave(5)
    tokens = batch([0.0] * count, [0.0] * count)
    entropy = torch.rand(2, count, generator=random, dtype=torch.float64)
    return replace(
        tokens, old_logprobs=old, engine_logprobs=old + 0.1, logprobs=moved.clamp(max=0), entropy=entropy[0],
        advantages=advantages, sequence_ids=torch.arange(8).repeat_interleave(5), low=tokens.low.double(),
        high=tokens.high.double(), columns={"old_entropy": entropy[1]},
    )  # fmt: skip


class TestDynamicClip:
    def test_by_hand(self) -> None:
        """q = 1, 0.64, 0.04: √(1 − 0.64/q) = 0.6, 0, 0; √(1 + 0.8/q) = √1.8, 1.5, √21."""
        tokens = batch([math.log(q) for q in (1.0, 0.64, 0.04)], [0.0] * 3)
        low, high = DynamicClip().ratio_bounds(tokens, tokens.low, tokens.high)
        near(low, [0.8, 0.5, 0.5])
        near(high, [(1 + 1.8**0.5) / 2, 1.25, (1 + 21**0.5) / 2])

    def test_unlikely_tokens_stop_at_the_cap(self) -> None:
        tokens = batch([-40.0, -1e4], [0.0] * 2)
        low, high = DynamicClip().ratio_bounds(tokens, tokens.low, tokens.high)
        near(low, [0.5, 0.5])
        near(high, [10.0, 10.0])

    def test_null_keeps_a_bound(self) -> None:
        tokens = batch([-1.0], [0.0])
        near(DynamicClip(low=None).ratio_bounds(tokens, tokens.low, tokens.high)[0], [0.8])
        near(DynamicClip(high=None).ratio_bounds(tokens, tokens.low, tokens.high)[1], [1.2])

    @pytest.mark.parametrize("seed", range(3))
    def test_the_bounds_are_where_the_paper_has_them(self, seed: int) -> None:
        """2509.02333: |(r − 1)·r·q| = ε at each bound, with r·q the new probability."""
        tokens = random_tokens(seed)
        low, high = DynamicClip(cap=1e9).ratio_bounds(tokens, tokens.low, tokens.high)
        old = tokens.old_logprobs.exp()
        torch.testing.assert_close((high - 1) * high * old, torch.full_like(old, 0.2), rtol=1e-10, atol=0)
        reached = old >= 4 * 0.16  # below it no ratio moves the probability so far
        torch.testing.assert_close(
            ((1 - low) * low * old)[reached], old[reached] * 0 + 0.16, rtol=1e-9, atol=0
        )
        assert (low[~reached] == 0.5).all()


class TestBalancedClip:
    def bounds(self, strategy: BalancedClip, tokens: TokenBatch) -> list[float]:
        low, high = strategy.ratio_bounds(tokens, tokens.low, tokens.high)
        assert len(low.unique()) == len(high.unique()) == 1
        return [float(low[0]), float(high[0])]

    def test_it_stops_where_the_share_is_reached(self) -> None:
        """P = min(3, high), N = 2: the share is 0.375 at 1.2; 0.4 = P/(P + 2) asks for P = 4/3."""
        tokens = batch([math.log(3.0), math.log(2.0)], [1.0, -1.0], old=[0.0, 0.0])
        assert self.bounds(BalancedClip(), tokens) == pytest.approx([0.6, 1.35])
        assert self.bounds(BalancedClip(share=0.3), tokens) == pytest.approx([0.6, 1.2])
        assert self.bounds(BalancedClip(share=0.61), tokens) == pytest.approx([0.9, 3.0])
        assert self.bounds(BalancedClip(share=0.61, step=0.7), tokens) == pytest.approx([0.9, 3.0])

    def test_null_keeps_a_bound(self) -> None:
        tokens = batch([math.log(3.0), math.log(2.0)], [1.0, -1.0], old=[0.0, 0.0])
        assert self.bounds(BalancedClip(low=None, share=1.0), tokens) == pytest.approx([0.8, 3.0])
        assert self.bounds(BalancedClip(high=None, share=1.0), tokens) == pytest.approx([0.9, 1.2])

    def test_without_contrast_the_bounds_stay_where_they_begin(self) -> None:
        assert self.bounds(BalancedClip(), batch([-1.0], [0.0])) == pytest.approx([0.6, 1.2])

    @pytest.mark.parametrize("seed", range(8))
    def test_it_agrees_with_a_second_implementation(self, seed: int) -> None:
        """2510.18927, token by token."""
        tokens, low, high = random_tokens(seed), 0.6, 1.2
        pairs = list(zip(tokens.advantages.tolist(), tokens.ratio.tolist(), strict=True))

        def share() -> float:
            right = sum(min(r * a, high * a) for a, r in pairs if a > 0)
            wrong = sum(min(r * a, max(r, low) * a) for a, r in pairs if a < 0)
            return right / (right - wrong)

        while share() < 0.5 and high < 3 - 1e-9:
            high += 0.05
        while share() < 0.5 and low < 0.9 - 1e-9:
            low += 0.05
        assert self.bounds(BalancedClip(share=0.5), tokens) == pytest.approx([low, high])


class TestSequenceMask:
    def test_masks_wrong_responses_that_became_unlikely(self) -> None:
        """Mean of logμ − logπ: 0.75 and 0.25; only the first's wrong tokens lose their weight."""
        tokens = batch([-1.0, -2.0, -1.0, -1.0], [-1.0, 1.0, -1.0, -1.0])
        tokens = replace(
            tokens,
            engine_logprobs=torch.tensor([0.0, -1.5, -1.0, -0.5]),
            sequence_ids=torch.tensor([0, 0, 1, 1]),
        )
        near(SequenceMask().weights(tokens, torch.full((4,), 3.0)), [0, 3, 3, 3])
        near(SequenceMask(limit=0.2).weights(tokens, torch.ones(4)), [0, 1, 0, 0])
        near(SequenceMask(limit=None).weights(tokens, torch.ones(4)), [1, 1, 1, 1])

    @pytest.mark.parametrize("seed", range(3))
    def test_it_agrees_with_a_second_implementation(self, seed: int) -> None:
        """2512.02556, response by response."""
        tokens, expected = random_tokens(seed), []
        for start in range(0, 40, 5):
            span = range(start, start + 5)
            moved = sum(float(tokens.engine_logprobs[t] - tokens.logprobs[t]) for t in span) / 5
            expected += [0.0 if float(tokens.advantages[t]) < 0 and moved > 0.1 else 1.0 for t in span]
        near(SequenceMask(limit=0.1).weights(tokens, torch.ones(40)), expected)
        assert 0 < sum(expected) < 40


class TestEntropyRatioClip:
    def test_by_hand(self) -> None:
        """Ratios 0.9, 1, 1.04, 1.1, and 2 of an entropy that is 0 but for rounding."""
        old = [1.0, 1.0, 0.5, 1.0, 1e-6]
        tokens = batch([-1.0] * 5, [1.0] * 5, entropy=[0.9, 1.0, 0.52, 1.1, 2e-6], old_entropy=old)
        near(EntropyRatioClip().weights(tokens, torch.full((5,), 3.0)), [0, 3, 3, 0, 3])
        near(EntropyRatioClip(low=0.0).weights(tokens, torch.ones(5)), [1, 1, 1, 0, 1])
        near(EntropyRatioClip(high=None).weights(tokens, torch.ones(5)), [0, 1, 1, 1, 1])

    def test_an_entropy_of_0_is_a_number_like_others(self) -> None:
        tokens = batch([-1.0] * 3, [1.0] * 3, entropy=[0.0, 0.5, 0.0], old_entropy=[0.5, 0.0, 0.0])
        near(EntropyRatioClip().weights(tokens, torch.ones(3)), [0, 0, 1])
        near(EntropyRatioClip(low=0.0, high=None).weights(tokens, torch.ones(3)), [1, 1, 1])

    @pytest.mark.parametrize("seed", range(3))
    def test_it_agrees_with_a_second_implementation(self, seed: int) -> None:
        """2512.05591, token by token."""
        tokens = random_tokens(seed)
        pairs = zip(tokens.entropy.tolist(), tokens.columns["old_entropy"].tolist(), strict=True)
        expected = [float(0.5 < new / old < 1.5) for new, old in pairs]
        near(EntropyRatioClip(low=0.5, high=1.5).weights(tokens, torch.ones(40)), expected)
        assert 0 < sum(expected) < 40


@pytest.mark.parametrize(
    ("strategy", "kwargs"),
    [
        (DynamicClip, {"low": -0.1}),
        (DynamicClip, {"high": math.inf}),
        (DynamicClip, {"cap": 0.5}),
        (BalancedClip, {"share": 1.1}),
        (BalancedClip, {"low": -0.1}),
        (BalancedClip, {"low_end": 0.5}),
        (BalancedClip, {"high": 0.9}),
        (BalancedClip, {"high_end": 1.1}),
        (BalancedClip, {"step": 0.0}),
        (SequenceMask, {"limit": -0.1}),
        (SequenceMask, {"limit": math.nan}),
        (EntropyRatioClip, {"low": 1.1}),
        (EntropyRatioClip, {"high": 0.9}),
    ],
)
def test_values_out_of_range_are_refused(strategy: type[Strategy], kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{strategy.__name__}.*{next(iter(kwargs.values()))}"):
        strategy(**kwargs)


@pytest.mark.parametrize(
    "strategy",
    [
        DynamicClip(low=None, high=None),
        BalancedClip(low=None, high=None),
        SequenceMask(limit=None),
        EntropyRatioClip(low=0.0, high=None),
    ],
)
def test_inert_settings_warn(strategy: Strategy) -> None:
    (warning,) = strategy.check(config(), [ClipHigher()])
    assert "does nothing" in warning
    assert type(strategy)().check(config(), [ClipCov()]) == []


@pytest.mark.parametrize("strategy", [DynamicClip(), BalancedClip()])
def test_bounds_that_a_later_strategy_replaces_are_refused(strategy: Strategy) -> None:
    strategy.name = "mine"
    other: Strategy
    for other in (ClipHigher(), DynamicClip(), BalancedClip()):
        other.name = "other"
        with pytest.raises(UsageError, match="mine sets the ratio's bounds anew, so other before it"):
            check_stack(config(), [other, strategy])
    for other in (ClipHigher(factor=1.0), KLCov(keep_clip=True), DynamicClip(low=None, high=None)):
        check_stack(config(), [other, strategy])
    assert check_stack(config(), [strategy, ClipHigher()]) == []


def test_bounds_that_no_surrogate_reads_warn() -> None:
    settings = config()
    settings.objective = {"surrogate": {"_target_": "ecrl.algorithm.surrogates.dppo"}}
    for strategy in (DynamicClip(), BalancedClip(), ClipHigher()):
        (warning,) = strategy.check(settings, [])
        assert "`dppo`" in warning and "does nothing" in warning
