"""Golden values of every strategy's hooks, and what each refuses or warns about."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ecrl import callbacks
from ecrl.algorithm.loss_plan import make_loss_plan, planned_loss
from ecrl.algorithm.losses import KL_ESTIMATORS
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import check_stack
from ecrl.callbacks import (
    AdaptiveEntropy,
    BalancedClip,
    ClipCov,
    ClipHigher,
    DynamicClip,
    EntropyAdvantage,
    EntropyBonus,
    EntropyRatioClip,
    HighEntropyTokens,
    ImportanceCorrection,
    KLCov,
    ReferenceKL,
)
from ecrl.errors import UsageError
from tests.support.paths import ROOT
from tests.support.tokens import batch, config, near

FOLDER = ROOT / "configs" / "strategy"
# `…_small` and `…_32b` are presets of the same strategies with other shares.
YAMLS = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.endswith(("_small", "_32b")))


def target(path: Path) -> Any:
    """The one node of a strategy's YAML, under the strategy's name."""
    nodes = cast(Any, OmegaConf.load(path))
    assert list(nodes) == [path.stem]
    return nodes[path.stem]


# logπ has mean −2 and A mean 0, so Cov = [2·1, 1·(−1), −1·1, −2·(−1)] = [2, −1, −1, 2].
LOGPROBS = [0.0, -1.0, -3.0, -4.0]
ADVANTAGES = [1.0, -1.0, 1.0, -1.0]


class TestClipCov:
    def test_zeroes_all_candidates_when_they_are_fewer_than_the_draw(self) -> None:
        weights = ClipCov(fraction=1.0).weights(batch(LOGPROBS, ADVANTAGES), torch.ones(4))
        near(weights, [0, 1, 1, 0])

    def test_bounds_are_strict(self) -> None:
        tokens = batch(LOGPROBS, ADVANTAGES)
        near(ClipCov(fraction=1.0, low=2.0).weights(tokens, torch.ones(4)), [1, 1, 1, 1])
        near(ClipCov(fraction=1.0, high=2.0).weights(tokens, torch.ones(4)), [1, 1, 1, 1])

    def test_leaves_out_tokens_that_the_ratio_bounds_clip(self) -> None:
        # Token 0: A > 0 and ratio e^0.3 > 1.2. Token 3: A < 0, the same ratio is not clipped.
        tokens = batch(LOGPROBS, ADVANTAGES, old=[-0.3, -1.0, -3.0, -4.3])
        strategy = ClipCov(fraction=1.0)
        strategy.name = "clip_cov"
        near(make_loss_plan(tokens, Objective(), [strategy]).weights, [1, 1, 1, 0])

    def test_bounds_may_be_quantiles(self) -> None:
        """Covariances 1 … 8 (by construction): the upper half, and without its own upper half."""
        tokens, weights = batch([0.0] * 8, [0.0] * 8), []
        with pytest.MonkeyPatch.context() as patch:
            covariance = torch.arange(1.0, 9.0)
            patch.setattr("ecrl.callbacks.clip_cov.token_covariance", lambda *_: covariance)
            strategy = ClipCov(fraction=1.0, low=0.5, high=None, quantiles=True)
            near(strategy.weights(tokens, torch.ones(8)), [1, 1, 1, 1, 0, 0, 0, 0])
            strategy = ClipCov(fraction=1.0, low=0.5, high=0.75, quantiles=True)
            near(strategy.weights(tokens, torch.ones(8)), [1, 1, 1, 1, 0, 0, 1, 1])
            for rounding in (1e-6, -1e-6):  # tokens 3 and 4 are twins: the median lies between them
                covariance[3], covariance[4] = 4.5 + rounding, 4.5 - rounding
                zeroed = ClipCov(fraction=1.0, low=0.5, high=None, quantiles=True)
                weights.append(zeroed.weights(tokens, torch.ones(8)))
        assert torch.equal(*weights)

    def test_draws_by_share_of_all_tokens_and_keeps_earlier_weights(self) -> None:
        # 40 tokens, 20 of them candidates: ⌊0.1·40⌋ = 4 are drawn, not 10 % of 20.
        tokens = batch(LOGPROBS * 10, ADVANTAGES * 10)
        weights = ClipCov(fraction=0.1).weights(tokens, torch.full((40,), 3.0))
        drawn = (weights == 0).nonzero().flatten() % 4
        assert len(drawn) == 4
        assert set(drawn.tolist()) <= {0, 3}
        assert set(weights.tolist()) == {0.0, 3.0}

    def test_draws_at_least_one_and_varies_with_the_key(self) -> None:
        drawn = set()
        for key in range(20):
            weights = ClipCov().weights(batch(LOGPROBS, ADVANTAGES, key=key), torch.ones(4))
            assert (weights == 0).sum() == 1
            drawn.add(int(weights.argmin()))
        assert drawn == {0, 3}

    def test_two_in_a_stack_draw_apart_and_each_the_same_again(self) -> None:
        tokens = batch(LOGPROBS * 100, ADVANTAGES * 100)  # 200 candidates
        drawn = {}
        for stack in (["a"], ["b"], ["a", "b"]):
            strategies = [ClipCov(fraction=0.25) for _ in stack]
            for name, strategy in zip(stack, strategies, strict=True):
                strategy.name = name
            drawn["".join(stack)] = make_loss_plan(tokens, Objective(), strategies).weights == 0
        assert drawn["a"].sum() == drawn["b"].sum() == 100
        assert torch.equal(drawn["ab"], drawn["a"] | drawn["b"])
        # Two independent halves of 200 share 50, with a standard deviation of 3.5.
        assert 30 < (drawn["a"] & drawn["b"]).sum() < 70

    def test_fraction_zero_one_token_and_no_candidates_change_nothing(self) -> None:
        near(ClipCov(fraction=0).weights(batch(LOGPROBS, ADVANTAGES), torch.ones(4)), [1, 1, 1, 1])
        near(ClipCov(fraction=1).weights(batch([-1.0], [5.0]), torch.ones(1)), [1])
        near(ClipCov(fraction=1).weights(batch(LOGPROBS, [1.0] * 4), torch.ones(4)), [1, 1, 1, 1])


class TestKLCov:
    # Mean logπ −2.5, mean A 0: Cov = [2.5, 1.5, −0.5, −1.5] · A.
    tokens = batch(
        [0.0, -1.0, -3.0, -4.0, -4.5], [2.0, 1.0, -1.0, -2.0, 0.0], old=[0.5, -0.8, -3.5, -4.0, -4.5]
    )

    def test_penalises_the_top_tokens(self) -> None:
        near(KLCov(fraction=0.4, coefficient=0.7).penalty_coefficients(self.tokens), [0.7, 0, 0, 0.7, 0])
        # Cov = [5, 1.5, 0.5, 3, 0]; token 3 counts, although it has not moved from π_old.
        near(KLCov(fraction=0.6, coefficient=0.7).penalty_coefficients(self.tokens), [0.7, 0.7, 0, 0.7, 0])
        near(KLCov(fraction=1.0).penalty_coefficients(self.tokens), [1, 1, 1, 1, 1])

    def test_takes_high_not_low_covariance(self) -> None:
        flipped = replace(self.tokens, advantages=-self.tokens.advantages)
        # Cov = [−5, −1.5, −0.5, −3, 0]: the largest are tokens 4 and 2.
        near(KLCov(fraction=0.4).penalty_coefficients(flipped), [0, 0, 1, 0, 1])

    def test_rounding_is_no_distance_from_the_old_policy(self) -> None:
        rounded = replace(
            self.tokens, old_logprobs=self.tokens.logprobs + torch.tensor([1, -1, 1, 1, -1]) * 1e-5
        )
        near(KLCov(fraction=1.0).penalty_coefficients(rounded), [0, 0, 0, 0, 0])

    def test_at_least_one_unless_the_fraction_is_zero(self) -> None:
        near(KLCov(fraction=1e-6).penalty_coefficients(self.tokens), [1, 0, 0, 0, 0])
        near(KLCov(fraction=0).penalty_coefficients(self.tokens), [0, 0, 0, 0, 0])
        near(KLCov().penalty_coefficients(batch([-1.0], [2.0], old=[-1.5])), [1])

    def test_ties_do_not_depend_on_the_order(self) -> None:
        tokens = batch([-1.0] * 10, [1.0] * 10, old=[-1.1] * 10)
        order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
        chosen = KLCov(fraction=0.3).penalty_coefficients(tokens) > 0
        again = KLCov(fraction=0.3).penalty_coefficients(tokens.select(order)) > 0
        assert chosen.sum() == 3
        assert torch.equal(chosen[order], again)

    @pytest.mark.parametrize(
        ("estimator", "values", "gradients"),
        [
            # x = [−0.5, −0.2, 0.5, 0, 0]
            ("abs", [0.5, 0.2, 0.5], [-1.0, -1.0, 1.0]),
            ("k2", [0.125, 0.02, 0.125], [-0.5, -0.2, 0.5]),
            (
                "k3",
                [math.exp(0.5) - 1.5, math.exp(0.2) - 1.2, math.exp(-0.5) - 0.5],
                [1 - math.exp(0.5), 1 - math.exp(0.2), 1 - math.exp(-0.5)],
            ),
        ],
    )
    def test_penalty_pulls_towards_the_old_policy(
        self, estimator: str, values: list[float], gradients: list[float]
    ) -> None:
        tokens = replace(self.tokens, logprobs=self.tokens.logprobs.clone().requires_grad_())
        penalty = KLCov(estimator=estimator).penalty(tokens)
        near(penalty.detach(), [*values, 0, 0])
        near(torch.autograd.grad(penalty.sum(), tokens.logprobs)[0], [*gradients, 0, 0])

    def test_loss_has_no_clip_and_the_penalty(self) -> None:
        # r = e^−0.5, e^−0.2, e^0.5, 1, 1. −A·r without clip, plus |−0.5| on token 0; token mean.
        strategy = KLCov(fraction=0.2)
        plan = make_loss_plan(self.tokens, Objective(), [strategy])
        loss = planned_loss(
            replace(self.tokens, low=plan.tokens.low, high=plan.tokens.high), plan, Objective(), [strategy]
        )
        wanted = -2 * math.exp(-0.5) - math.exp(-0.2) + math.exp(0.5) + 2.0 + 0.5
        assert float(loss) == pytest.approx(wanted / 5, abs=1e-6)

    def test_bounds(self) -> None:
        low, high = KLCov().ratio_bounds(self.tokens, self.tokens.low, self.tokens.high)
        assert low.tolist() == [0.0] * 5
        assert high.tolist() == [math.inf] * 5
        low, high = KLCov(keep_clip=True).ratio_bounds(self.tokens, self.tokens.low, self.tokens.high)
        near(low, [0.8] * 5)
        near(high, [1.2] * 5)

    def test_nothing_to_penalise_while_the_policy_is_the_old_one(self) -> None:
        strategy = KLCov(fraction=1.0)
        strategy.name = "kl_cov"
        assert not make_loss_plan(batch(LOGPROBS, ADVANTAGES), Objective(), [strategy]).coefficients


@pytest.mark.parametrize(
    ("low", "high", "wanted_low", "wanted_high"),
    [(0.2, 0.28, 0.8, 1.28), (0.1, None, 0.9, 1.28), (None, 0.5, 0.8, 1.5), (None, None, 0.8, 1.28)],
)
def test_clip_higher(low: float | None, high: float | None, wanted_low: float, wanted_high: float) -> None:
    tokens = batch(LOGPROBS, ADVANTAGES)
    got_low, got_high = ClipHigher(low=low, high=high).ratio_bounds(tokens, tokens.low, tokens.high)
    near(got_low, [wanted_low] * 4)
    near(got_high, [wanted_high] * 4)


def test_clip_higher_widens_the_bounds_of_the_objective_at_hand() -> None:
    tokens = batch(LOGPROBS, ADVANTAGES)
    low, high = (torch.full((4,), bound) for bound in (1 - 3e-4, 1 + 4e-4))  # GSPO's
    got_low, got_high = ClipHigher().ratio_bounds(tokens, low, high)
    assert torch.equal(got_low, low)
    near(got_high - 1, [5.6e-4] * 4)
    got_low, got_high = ClipHigher(factor=1.0).ratio_bounds(tokens, low, high)
    assert torch.equal(got_low, low) and torch.equal(got_high, high)


def test_entropy_bonus_lowers_the_loss_by_the_entropy() -> None:
    strategy = EntropyBonus(coefficient=0.1)
    tokens = batch(LOGPROBS, [0.0] * 4, entropy=[1.0, 2.0, 3.0, 4.0])
    tokens = replace(tokens, entropy=tokens.entropy.requires_grad_())
    near(strategy.penalty_coefficients(tokens), [-0.1] * 4)
    loss = planned_loss(tokens, make_loss_plan(tokens, Objective(), [strategy]), Objective(), [strategy])
    assert float(loss.detach()) == pytest.approx(-0.1 * 2.5, abs=1e-6)
    near(torch.autograd.grad(loss, tokens.entropy)[0], [-0.025] * 4)
    assert strategy.logged_coefficient() == 0.1


class TestReferenceKL:
    def test_penalty_pulls_towards_the_reference(self) -> None:
        # x = [0.5, −0.5]; the old policy does not matter.
        tokens = batch([-1.0, -2.0], [1.0, 1.0], old=[-7.0, -7.0], reference_logprobs=[-1.5, -1.5])
        tokens = replace(tokens, logprobs=tokens.logprobs.requires_grad_())
        strategy = ReferenceKL(coefficient=0.3)
        near(strategy.penalty_coefficients(tokens), [0.3, 0.3])
        penalty = strategy.penalty(tokens)
        near(penalty.detach(), [math.exp(-0.5) - 0.5, math.exp(0.5) - 1.5])
        near(torch.autograd.grad(penalty.sum(), tokens.logprobs)[0], [1 - math.exp(-0.5), 1 - math.exp(0.5)])
        near(ReferenceKL(estimator="k2").penalty(tokens).detach(), [0.125, 0.125])
        near(ReferenceKL(estimator="abs").penalty(tokens).detach(), [0.5, 0.5])

    def test_asks_the_module_for_the_column_only_if_it_is_used(self) -> None:
        asked = []

        def score(scored: Any) -> Tensor:
            asked.append(scored)
            return torch.tensor([-1.5])

        for coefficient in (0.0, 0.5):
            strategy = ReferenceKL(coefficient=coefficient)
            strategy.setup(
                cast(Any, None),
                cast(Any, SimpleNamespace(scorer=SimpleNamespace(reference_logprobs=score))),
                "fit",
            )
            columns = strategy.extra_columns(cast(Any, "rollout"))
            assert list(columns) == (["reference_logprobs"] if coefficient else [])
        assert asked == ["rollout"]

    @pytest.mark.parametrize(("estimator", "reverse"), [("k2", False), ("k3", True)])
    def test_gradient_is_the_documented_one(self, estimator: str, reverse: bool) -> None:
        """E_π[D'(x)·∇logπ] against the exact gradient of KL(π‖ref) or KL(ref‖π)."""
        logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
        reference = torch.tensor([-0.5, 0.4, 0.2, 1.0], dtype=torch.float64).log_softmax(0)
        logprobs = logits.log_softmax(0)
        exact = (
            reference.exp() * (reference - logprobs) if reverse else logprobs.exp() * (logprobs - reference)
        ).sum()
        sampled = (logprobs.detach().exp() * KL_ESTIMATORS[estimator](logprobs - reference)).sum()
        (wanted,) = torch.autograd.grad(exact, logits, retain_graph=True)
        (got,) = torch.autograd.grad(sampled, logits)
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=0)


class TestAdaptiveEntropy:
    @staticmethod
    def iterate(strategy: AdaptiveEntropy, *entropies: float) -> list[float]:
        applied = []
        for entropy in entropies:
            strategy.on_rollout(cast(Any, SimpleNamespace(policy_entropy=entropy)), [])
            applied.append(strategy.logged_coefficient())
        return applied

    def test_climbs_below_the_target_and_applies_only_there(self) -> None:
        strategy = AdaptiveEntropy(target=0.2, delta=0.005)
        # The level goes 0 (clamped), .005, .010, .005 (at the target), 0 (above: not applied), .005.
        applied = self.iterate(strategy, 0.5, 0.1, 0.1, 0.2, 0.3, 0.19)
        assert applied == pytest.approx([0, 0.005, 0.010, 0.005, 0, 0.005], abs=1e-12)

    def test_level_survives_an_iteration_above_the_target(self) -> None:
        strategy = AdaptiveEntropy(target=0.2, delta=0.01, initial=0.05)
        assert self.iterate(strategy, 0.3, 0.1) == pytest.approx([0, 0.05], abs=1e-12)

    def test_maximum(self) -> None:
        assert self.iterate(AdaptiveEntropy(delta=0.02, maximum=0.03), 0.1, 0.1, 0.1) == [0.02, 0.03, 0.03]

    def test_rewards_entropy(self) -> None:
        strategy = AdaptiveEntropy(target=0.2, delta=0.005)
        tokens = batch(LOGPROBS, ADVANTAGES, entropy=[1.0, 2.0, 3.0, 4.0])
        near(strategy.penalty_coefficients(tokens), [0] * 4)
        self.iterate(strategy, 0.1)
        near(strategy.penalty_coefficients(tokens), [-0.005] * 4)
        near(strategy.penalty(tokens), [1, 2, 3, 4])

    def test_state_round_trips_exactly(self) -> None:
        strategy, other = AdaptiveEntropy(), AdaptiveEntropy()
        self.iterate(strategy, 0.1, 0.1, 0.1)
        other.load_state_dict(strategy.state_dict())
        assert other.logged_coefficient() == strategy.logged_coefficient()
        assert self.iterate(other, 0.3, 0.1, 0.15) == self.iterate(strategy, 0.3, 0.1, 0.15)

    def test_two_in_a_stack_keep_their_state_apart(self) -> None:
        first, second = AdaptiveEntropy(), AdaptiveEntropy()
        first.name, second.name = "soft", "hard"
        assert first.state_key != second.state_key


class TestHighEntropyTokens:
    tokens = batch([-1.0] * 5, [1.0] * 5, entropy=[0.1, 2.0, 0.3, 1.0, 0.2])

    def test_keeps_the_top_and_averages_over_them(self) -> None:
        near(HighEntropyTokens(fraction=0.4).weights(self.tokens, torch.ones(5)), [0, 2.5, 0, 2.5, 0])
        near(HighEntropyTokens(fraction=0.2).weights(self.tokens, torch.full((5,), 2.0)), [0, 10, 0, 0, 0])
        # ⌊0.05·5⌋ = 0, but one is always kept.
        near(HighEntropyTokens(fraction=0.05).weights(self.tokens, torch.ones(5)), [0, 5, 0, 0, 0])
        near(
            HighEntropyTokens(fraction=0.4, rescale=False).weights(self.tokens, torch.ones(5)),
            [0, 1, 0, 1, 0],
        )

    def test_loss_is_the_mean_over_the_kept_tokens(self) -> None:
        strategy = HighEntropyTokens(fraction=0.4)
        tokens = replace(self.tokens, advantages=torch.tensor([9.0, 1.0, 9.0, 2.0, 9.0]))
        loss = planned_loss(tokens, make_loss_plan(tokens, Objective(), [strategy]), Objective(), [strategy])
        assert float(loss) == pytest.approx(-1.5, abs=1e-6)

    def test_all_tokens_and_one_token_change_nothing(self) -> None:
        weights = torch.tensor([0.1, 0.7, 1.0, 0.0, 0.3])
        assert torch.equal(HighEntropyTokens(fraction=1.0).weights(self.tokens, weights), weights)
        near(HighEntropyTokens().weights(batch([-1.0], [1.0]), torch.ones(1)), [1])

    def test_ties_keep_the_exact_count(self) -> None:
        weights = HighEntropyTokens(fraction=0.4).weights(batch([-1.0] * 5, [1.0] * 5), torch.ones(5))
        assert sorted(weights.tolist()) == [0, 0, 0, 2.5, 2.5]


def test_entropy_advantage() -> None:
    # min(0.4·H, |A|/2) = min(0.4, 1), min(0.8, 0.5), min(0.4, 0.25), min(0.04, 0.5), 0
    tokens = batch([-1.0] * 5, [2.0, -1.0, 0.5, -1.0, 0.0], entropy=[1.0, 2.0, 1.0, 0.1, 1.0])
    tokens = replace(tokens, entropy=tokens.entropy.requires_grad_())
    shaped = EntropyAdvantage().advantages(tokens, tokens.advantages)
    near(shaped, [2.4, -0.5, 0.75, -0.96, 0.0])
    assert not shaped.requires_grad
    near(EntropyAdvantage(kappa=4.0).advantages(tokens, tokens.advantages), [2.4, -0.75, 0.625, -0.96, 0.0])
    assert torch.equal(EntropyAdvantage(alpha=0).advantages(tokens, tokens.advantages), tokens.advantages)


class TestImportanceCorrection:
    # π_old/μ: sequence 0 has 4, 1/8, 1 (product 1/2); sequence 1 has 3/2, 3/2 (product 9/4, mean 3/2).
    ratios = torch.tensor([4.0, 0.125, 1.0, 1.5, 1.5])
    mean_0 = 0.5 ** (1 / 3)

    @classmethod
    def weigh(cls, **knobs: Any) -> Tensor:
        old = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0])
        tokens = replace(
            batch(old.tolist(), [1.0, -1.0, 1.0, -1.0, 1.0]),
            engine_logprobs=old - cls.ratios.log(),
            sequence_ids=torch.tensor([0, 0, 0, 1, 1]),
        )
        return ImportanceCorrection(**knobs).weights(tokens, torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0]))

    def test_truncates(self) -> None:
        near(self.weigh(), [2, 0.125, 1, 1.5, 3])
        near(self.weigh(cap=1.25), [1.25, 0.125, 1, 1.25, 2.5])
        near(self.weigh(level="sequence"), [0.5, 0.5, 0.5, 2, 4])
        near(self.weigh(level="geometric"), [self.mean_0] * 3 + [1.5, 3])

    def test_masks(self) -> None:
        near(self.weigh(mode="mask"), [0, 0, 1, 1.5, 3])
        near(self.weigh(mode="mask", floor=0.1, cap=5.0), [4, 0.125, 1, 1.5, 3])
        near(self.weigh(mode="mask", level="sequence", floor=0.4), [0.5, 0.5, 0.5, 0, 0])
        near(self.weigh(mode="mask", level="geometric", floor=0.8), [0, 0, 0, 1.5, 3])

    @pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
    @pytest.mark.parametrize("mode", ["truncate", "mask"])
    def test_neither_an_exact_engine_nor_an_absurd_token_breaks_it(self, level: str, mode: str) -> None:
        tokens = batch([-1.0, -0.1, -7.0], [1.0, 1.0, 1.0])
        correction = ImportanceCorrection(level=level, mode=mode, cap=1.0, floor=1.0)
        assert torch.equal(correction.weights(tokens, torch.full((3,), 0.7)), torch.full((3,), 0.7))
        absurd = replace(tokens, engine_logprobs=torch.full((3,), -1000.0))
        limit = 1.0 if mode == "truncate" else 0.0  # exp(1000) is infinite in floating point
        near(correction.weights(absurd, torch.ones(3)), [limit] * 3)


@pytest.mark.parametrize(
    ("strategy", "kwargs"),
    [
        (ClipCov, {"fraction": -0.1}),
        (ClipCov, {"fraction": 20}),
        (ClipCov, {"fraction": math.nan}),
        (ClipCov, {"low": 5.0, "high": 1.0}),
        (KLCov, {"fraction": 1.1}),
        (KLCov, {"coefficient": -1.0}),
        (KLCov, {"coefficient": math.inf}),
        (KLCov, {"estimator": "k4"}),
        (ClipHigher, {"low": -0.1}),
        (ClipHigher, {"low": 1.1}),
        (ClipHigher, {"high": -0.1}),
        (EntropyBonus, {"coefficient": -1e-3}),
        (ReferenceKL, {"coefficient": -1e-3}),
        (ReferenceKL, {"estimator": "full"}),
        (AdaptiveEntropy, {"target": 0.0}),
        (AdaptiveEntropy, {"delta": -0.1}),
        (AdaptiveEntropy, {"initial": -0.1}),
        (AdaptiveEntropy, {"initial": 0.2, "maximum": 0.1}),
        (HighEntropyTokens, {"fraction": 0.0}),
        (HighEntropyTokens, {"fraction": 1.5}),
        (ImportanceCorrection, {"level": "word"}),
        (ImportanceCorrection, {"mode": "clip"}),
        (ImportanceCorrection, {"cap": 0.9}),
        (ImportanceCorrection, {"cap": math.inf}),
        (ImportanceCorrection, {"floor": 1.1}),
        (EntropyAdvantage, {"alpha": -0.1}),
        (EntropyAdvantage, {"kappa": 1.0}),
    ],
)
def test_values_out_of_range_are_refused(strategy: type[Strategy], kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(reversed(kwargs.values())))):
        strategy(**kwargs)


@pytest.mark.parametrize(
    "strategy",
    [
        ClipCov(fraction=0),
        KLCov(fraction=0),
        KLCov(coefficient=0),
        ClipHigher(factor=1.0),
        EntropyBonus(coefficient=0),
        ReferenceKL(coefficient=0),
        AdaptiveEntropy(delta=0),
        AdaptiveEntropy(maximum=0),
        HighEntropyTokens(fraction=1),
        EntropyAdvantage(alpha=0),
    ],
)
def test_inert_settings_warn(strategy: Strategy) -> None:
    assert len(strategy.check(config(), [])) == 1
    assert type(strategy)().check(config(), []) == []


def test_one_update_per_rollout_warns_where_the_ratio_matters() -> None:
    for strategy in (KLCov(), ClipHigher(), DynamicClip(), BalancedClip(), EntropyRatioClip()):
        strategy.name = "mine"
        (warning,) = check_stack(config(minibatches=1), [strategy])
        assert warning.startswith("mine: with one update per rollout")
        assert check_stack(config(minibatches=1, epochs=2), [strategy]) == []
    assert check_stack(config(minibatches=1), [ClipCov()]) == []


def test_clip_higher_warns_where_the_surrogate_has_no_ratio() -> None:
    (warning,) = ClipHigher().check(config(surrogate="reinforce"), [])
    assert "reinforce" in warning


def test_impossible_pairs_are_refused_with_the_reason() -> None:
    kl_cov, clip_higher, narrow = KLCov(), ClipHigher(), ClipHigher(factor=1.0, low=0.1)
    kl_cov.name, clip_higher.name, narrow.name = "kl_cov", "clip_higher", "narrow"
    with pytest.raises(UsageError, match=r"kl_cov removes.*clip_higher.*keep_clip"):
        kl_cov.check(config(), [clip_higher])
    assert KLCov(keep_clip=True).check(config(), [clip_higher]) == []
    with pytest.raises(UsageError, match="same ratio bound"):
        clip_higher.check(config(), [ClipHigher(high=0.5)])
    assert narrow.check(config(), [clip_higher, ClipCov()]) == []
    with pytest.raises(UsageError, match="rescale"):
        HighEntropyTokens().check(config(), [HighEntropyTokens(fraction=0.5)])


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_yaml_builds_the_defaults(path: Path) -> None:
    built = instantiate(target(path))
    assert isinstance(built, Strategy)
    assert vars(built) == vars(type(built)())


def test_every_strategy_has_a_yaml() -> None:
    assert {target(path)._target_ for path in YAMLS} == {
        f"ecrl.callbacks.{name}" for name in callbacks.__all__
    }
