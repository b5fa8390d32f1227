"""Estimators against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from ecrl.algorithm import advantages

REWARDS = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
GROUPS = torch.tensor([7, 7, 7, 7, 3, 3])


def test_grpo() -> None:
    # group 7: mean ¼, sample variance (9/16 + 3/16)/3 = ¼ → std ½; group 3: no spread
    got = advantages.grpo(REWARDS, GROUPS)
    assert got.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0.0, 0.0], abs=1e-5)


def test_dr_grpo() -> None:
    got = advantages.dr_grpo(REWARDS, GROUPS)
    assert got.tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25, 0.0, 0.0], abs=1e-6)


def test_rloo_compares_with_the_others() -> None:
    got = advantages.rloo(REWARDS, GROUPS)
    assert got.tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3, 0.0, 0.0], abs=1e-6)


def test_rloo_of_a_single_completion_is_zero() -> None:
    assert advantages.rloo(torch.tensor([1.0]), torch.tensor([0])).tolist() == [0.0]


def test_reinforce_pp_whitens_over_the_batch() -> None:
    # mean ½, population std ½
    got = advantages.reinforce_pp(REWARDS, GROUPS)
    assert got.tolist() == pytest.approx([1.0, -1.0, -1.0, -1.0, 1.0, 1.0], abs=1e-5)


def test_reinforce_pp_baseline_whitens_what_the_group_leaves() -> None:
    # R − group mean: ¾, −¼, −¼, −¼, 0, 0; mean 0, population variance (9 + 3)/16/6 = ⅛
    got = advantages.reinforce_pp_baseline(REWARDS, GROUPS)
    scale = 8**0.5
    assert got.tolist() == pytest.approx([0.75 * scale, *[-0.25 * scale] * 3, 0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("estimator", [*advantages.GROUP_ESTIMATORS, advantages.reinforce_pp])
def test_order_does_not_matter(estimator) -> None:  # type: ignore[no-untyped-def]
    order = torch.tensor([3, 5, 0, 4, 1, 2])
    shuffled = estimator(REWARDS[order], GROUPS[order])
    assert torch.allclose(shuffled, estimator(REWARDS, GROUPS)[order], atol=1e-6)


def test_zero_variance_marks_groups_without_contrast() -> None:
    assert advantages.zero_variance(REWARDS, GROUPS).tolist() == [False] * 4 + [True] * 2
