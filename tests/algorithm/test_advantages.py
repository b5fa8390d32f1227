"""Estimators against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ecrl.algorithm import advantages
from tests.support.tokens import make_episodes

REWARDS = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
GROUPS = [7, 7, 7, 7, 3, 3]
EPISODES = make_episodes(REWARDS, GROUPS)


def test_grpo() -> None:
    # group 7: mean ¼, sample variance (9/16 + 3/16)/3 = ¼ → std ½; group 3: no spread
    got = advantages.grpo(EPISODES)
    assert got.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0.0, 0.0], abs=1e-5)


def test_dr_grpo() -> None:
    got = advantages.dr_grpo(EPISODES)
    assert got.tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25, 0.0, 0.0], abs=1e-6)


def test_rloo_compares_with_the_others() -> None:
    got = advantages.rloo(EPISODES)
    assert got.tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3, 0.0, 0.0], abs=1e-6)


def test_rloo_of_a_single_completion_is_zero() -> None:
    assert advantages.rloo(make_episodes([1.0], [0])).tolist() == [0.0]


def test_reinforce_pp_whitens_over_the_batch() -> None:
    # mean ½, population std ½
    got = advantages.reinforce_pp(EPISODES)
    assert got.tolist() == pytest.approx([1.0, -1.0, -1.0, -1.0, 1.0, 1.0], abs=1e-5)


def test_reinforce_pp_baseline_whitens_what_the_group_leaves() -> None:
    # R − group mean: ¾, −¼, −¼, −¼, 0, 0; mean 0, population variance (9 + 3)/16/6 = ⅛
    got = advantages.reinforce_pp_baseline(EPISODES)
    scale = 8**0.5
    assert got.tolist() == pytest.approx([0.75 * scale, *[-0.25 * scale] * 3, 0.0, 0.0], abs=1e-4)


#: Those that need no column.
BASELINES = [f for f in advantages.GROUP_ESTIMATORS if f is not advantages.prime]
ESTIMATORS = [*BASELINES, *advantages.AT_K_ESTIMATORS, advantages.reinforce_pp, advantages.w_reinforce]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_order_does_not_matter(estimator) -> None:  # type: ignore[no-untyped-def]
    order = [3, 5, 0, 4, 1, 2]
    shuffled = estimator(make_episodes([REWARDS[i] for i in order], [GROUPS[i] for i in order]))
    assert torch.allclose(shuffled, estimator(EPISODES)[order], atol=1e-6)


def test_zero_variance_marks_groups_without_contrast() -> None:
    assert advantages.zero_variance(EPISODES.rewards, EPISODES.group_ids).tolist() == [False] * 4 + [True] * 2


def test_whitening_is_over_tokens() -> None:
    """Rewards 1 and 0 of three tokens and one: mean ¾, population variance ¾·¼ = 3/16."""
    episodes = make_episodes([1.0, 0.0], [0, 1], lengths=[3, 1])
    deviation = (3 / 16) ** 0.5
    got = advantages.reinforce_pp(episodes)
    assert got.tolist() == pytest.approx([0.25 / deviation] * 3 + [-0.75 / deviation], abs=1e-4)
    # With the group mean ½ as baseline: ½, ½, ½, −½; mean ¼, variance 3/16.
    grouped = make_episodes([1.0, 0.0], [0, 0], lengths=[3, 1])
    got = advantages.reinforce_pp_baseline(grouped)
    assert got.tolist() == pytest.approx([0.25 / deviation] * 3 + [-0.75 / deviation], abs=1e-4)


def test_rewards_of_turns_reach_the_tokens_of_their_turns() -> None:
    """Turn rewards 1 and 3 over tokens (2, 1): returns 4, 4, 3."""
    episodes = make_episodes([4.0], [0], lengths=[3], token_rewards=[0.0, 1.0, 3.0])
    assert episodes.returns(episodes.token_rewards).tolist() == [4.0, 4.0, 3.0]
    early, middle, late = advantages.reinforce_pp(episodes).tolist()
    assert early == middle > late


@pytest.mark.parametrize("reward", [0.3, 0.1, 1 / 3])
@pytest.mark.parametrize("estimator", [*BASELINES, *advantages.AT_K_ESTIMATORS, advantages.reinforce_pp])
def test_equal_rewards_have_no_advantage(estimator: Any, reward: float) -> None:
    assert estimator(make_episodes([reward] * 8, [0] * 8)).tolist() == [0.0] * 8


def test_prime_by_hand() -> None:
    """Two responses of a prompt, of two tokens and one: r = (1, 3) and (5), R = 1 and 0.

    Means 2 and 5. First: others' mean 5, returns (1 − 5) + (3 − 5) = −6 and −2; outcome 1 − 0. Second:
    others' mean 2, return 5 − 2; outcome 0 − 1.
    """
    rewards = torch.tensor([1.0, 3.0, 5.0])
    episodes = make_episodes([1.0, 0.0], [0, 0], lengths=[2, 1], process_rewards=rewards)
    assert advantages.prime(episodes).tolist() == pytest.approx([-5.0, -1.0, 2.0])
    assert advantages.prime(episodes, coefficient=0.5).tolist() == pytest.approx([-2.0, 0.0, 0.5])
    assert advantages.prime(episodes, coefficient=0.0).tolist() == pytest.approx([1.0, 1.0, -1.0])
    assert float(advantages.prime(episodes, whiten=True).mean()) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="coefficient"):
        advantages.prime(episodes, coefficient=-1.0)


def test_the_quantile_baseline_trains_on_the_rare_kind() -> None:
    """The 0.4-quantile of four is the second smallest: 0 of one right, 1 of three right; std ½ of both."""
    episodes = make_episodes([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0] * 4 + [1] * 4)
    got = advantages.quantile_baseline(episodes)
    assert got.tolist() == pytest.approx([2.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0], abs=1e-5)
    # Five rewards: the smallest that 0.4·5 = 2 of them do not exceed is 0.1; that of 0.41·5 is 0.2.
    episodes = make_episodes([0.4, 0.0, 0.3, 0.1, 0.2], [0] * 5)
    for quantile, baseline in ((0.4, 0.1), (0.41, 0.2), (0.01, 0.0), (0.99, 0.4)):
        got = advantages.quantile_baseline(episodes, quantile) * (0.025**0.5 + 1e-6)
        wanted = [0.4 - baseline, -baseline, 0.3 - baseline, 0.1 - baseline, 0.2 - baseline]
        assert got.tolist() == pytest.approx(wanted, abs=1e-6)


def test_w_reinforce_weighs_right_responses_less() -> None:
    got = advantages.w_reinforce(EPISODES)
    assert got.tolist() == pytest.approx([0.1, -1.0, -1.0, -1.0, 0.1, 0.1])
    assert advantages.w_reinforce(EPISODES, positive=0.0).tolist() == [0.0, -1.0, -1.0, -1.0, 0.0, 0.0]
    assert advantages.w_reinforce(EPISODES, positive=1.0).tolist() == [1.0, -1.0, -1.0, -1.0, 1.0, 1.0]


def test_max_rl_divides_by_the_mean() -> None:
    got = advantages.max_rl(EPISODES)  # (1 − ¼)/¼ and (0 − ¼)/¼
    assert got.tolist() == pytest.approx([3.0, -1.0, -1.0, -1.0, 0.0, 0.0], abs=1e-4)


def test_opo_weighs_the_baseline_by_length() -> None:
    """Rewards 1 and 0 of three tokens and one: baseline ¾."""
    got = advantages.opo(make_episodes([1.0, 0.0], [0, 0], lengths=[3, 1]))
    assert got.tolist() == [0.25, -0.75]


def test_pkpo_by_hand() -> None:
    """Rewards 0, 1, 3 and pairs: 1 adds 1 to {0}; 3 adds 3 to {0}, 2 to {1}. Times 3 by C(3, 2) = 3."""
    got = advantages.pkpo(make_episodes([1.0, 3.0, 0.0], [0] * 3), k=2)
    assert got.tolist() == pytest.approx([1.0, 5.0, 0.0])
    # One right of four: it is in 3 of 6 pairs, and alone right in each; times 4.
    got = advantages.pkpo(make_episodes([1.0, 0.0, 0.0, 0.0], [0] * 4), k=2)
    assert got.tolist() == pytest.approx([2.0, 0.0, 0.0, 0.0])
    assert not advantages.pkpo(make_episodes([1.0, 0.0], [0, 0]), k=3).any()


def test_pass_at_k_by_hand() -> None:
    """One right of four: a pair misses it with ½, so σ = ½; a wrong one's mate is wrong with 2/3."""
    got = advantages.pass_at_k(make_episodes([1.0, 0.0, 0.0, 0.0], [0] * 4), k=2)
    assert got.tolist() == pytest.approx([1.0, *[2 * (1 / 2 - 2 / 3)] * 3], abs=1e-5)
    # For k=1 it is GRPO's with the population's deviation, √(¼·¾).
    got = advantages.pass_at_k(make_episodes([1.0, 0.0, 0.0, 0.0], [0] * 4), k=1)
    assert got.tolist() == pytest.approx([3**0.5, *[-(3**-0.5)] * 3], abs=1e-5)
    assert not advantages.pass_at_k(make_episodes([1.0, 0.0], [0, 0]), k=3).any()


@pytest.mark.parametrize(
    ("estimator", "settings"),
    [
        ("quantile_baseline", {"quantile": 0.0}),
        ("quantile_baseline", {"quantile": 1.0}),
        ("w_reinforce", {"positive": -0.1}),
        ("w_reinforce", {"positive": float("nan")}),
        ("pkpo", {"k": 1}),
        ("pass_at_k", {"k": 0}),
    ],
)
def test_values_out_of_range_are_refused(estimator: str, settings: dict[str, Any]) -> None:
    (value,) = settings.values()
    with pytest.raises(ValueError, match=f"^{estimator}: .*{value}"):
        getattr(advantages, estimator)(EPISODES, **settings)
