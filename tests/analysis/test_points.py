"""Pairing rewards with entropies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ecrl.analysis.law import fit_law
from ecrl.analysis.points import default_reward, is_validation, pair, smooth
from ecrl.analysis.series import Series, from_rows

# A validation before the first iteration and after the second and fourth; one entropy was not measured.
ROWS = [
    {"iteration": 0, "val/task/avg@4": 0.1},
    {"iteration": 1, "policy/entropy": 0.9, "rollout/reward": 0.12},
    {"iteration": 2, "policy/entropy": 0.7, "rollout/reward": 0.2, "val/task/avg@4": 0.3},
    {"iteration": 3, "policy/entropy": None, "rollout/reward": 0.3},
    {"iteration": 4, "policy/entropy": 0.4, "rollout/reward": 0.35, "val/task/avg@4": 0.5},
]


def test_a_validation_goes_with_the_entropy_of_the_next_rollout() -> None:
    points = pair(from_rows(ROWS, Path("run")))
    assert points.reward_name == "val/task/avg@4"
    # 0 → 1; 2 → 4, since 3 was not measured; none follows 4.
    assert points.iteration.tolist() == [0, 2]
    assert points.reward.tolist() == [0.1, 0.3] and points.entropy.tolist() == [0.9, 0.4]
    assert "iteration t + 1" in points.pairing
    wide = pair(from_rows(ROWS, Path("run")), width=2)
    assert wide.entropy.tolist() == pytest.approx([0.9, 0.55]) and wide.reward.tolist() == [0.1, 0.3]
    assert "trailing mean of 2" in wide.pairing


def test_a_training_reward_goes_with_the_entropy_of_its_rollout() -> None:
    points = pair(from_rows(ROWS, Path("run")), "rollout/reward")
    assert points.iteration.tolist() == [1, 2, 4]
    assert points.reward.tolist() == [0.12, 0.2, 0.35] and points.entropy.tolist() == [0.9, 0.7, 0.4]
    wide = pair(from_rows(ROWS, Path("run")), "rollout/reward", width=2)  # of 1 and 2; 4 is left over
    assert wide.iteration.tolist() == [2]
    assert (wide.reward[0], wide.entropy[0]) == pytest.approx((0.16, 0.8))


def test_the_default_reward_is_the_first_validation_mean() -> None:
    def series(*names: str) -> Series:
        return from_rows([{"iteration": 1, **dict.fromkeys(names, 0.5)}], Path("run"))

    assert (
        default_reward(series("rollout/reward", "val/b/avg@8", "val/a/avg@8", "val/a/pass@8"))
        == "val/a/avg@8"
    )
    assert default_reward(series("rollout/reward", "val/a/pass@8")) == "rollout/reward"
    one = series("rollout/reward", "val/a/avg@8", "val/a/avg@4", "val/mean/avg@k")
    assert default_reward(one) == "val/a/avg@4"
    assert default_reward(series("val/a/avg@8", "val/b/avg@4", "val/mean/avg@k")) == "val/mean/avg@k"


def test_smoothed_points_keep_the_nominal_rate_and_overlapping_means_would_not() -> None:
    rng, apart, overlapping = np.random.default_rng(0), 0, 0
    entropy = np.linspace(0.8, 0.1, 100)
    for _ in range(400):
        reward = 0.9 - 0.3 * np.exp(entropy) + 0.05 * rng.standard_normal(100)
        rows = [
            {"iteration": i, "policy/entropy": h, "rollout/reward": r}
            for i, (h, r) in enumerate(zip(entropy.tolist(), reward.tolist(), strict=True), start=1)
        ]
        low, high = pair(from_rows(rows, Path("run")), width=5).law().a_interval
        apart += low <= 0.3 <= high
        low, high = fit_law(smooth(entropy, 5), smooth(reward, 5)).a_interval
        overlapping += low <= 0.3 <= high
    least, most = stats.binom.interval(0.9999, 400, 0.95)
    assert least <= apart <= most and overlapping < least


@pytest.mark.parametrize("name", ["val/a/avg@4", "val-core/acc", "eval_reward", "test.acc", "validation/r"])
def test_what_begins_with_the_word_is_a_validation(name: str) -> None:
    assert is_validation(name)


@pytest.mark.parametrize("name", ["value_loss_reward", "values/mean", "testing", "evaluate", "rollout/val"])
def test_what_merely_begins_alike_is_none(name: str) -> None:
    assert not is_validation(name)


def test_smooth_is_a_trailing_mean() -> None:
    assert smooth([1.0, 2.0, 6.0, 4.0], 3).tolist() == [1.0, 1.5, 3.0, 4.0]
    assert smooth([1.0, 2.0], 1).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="got 0"):
        smooth([1.0], 0)
