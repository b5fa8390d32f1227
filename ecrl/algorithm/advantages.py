"""Advantage estimators: pure functions of the rewards of a rollout.

Every function maps rewards ``[B]`` and group ids ``[B]`` (the problem each completion answers) to
advantages ``[B]``; each of a completion's tokens gets its completion's advantage.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6


def _groups(group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return each element's dense group index ``[B]`` and the group sizes ``[groups]``, as float."""
    _, index, counts = torch.unique(group_ids, return_inverse=True, return_counts=True)
    return index, counts


def group_mean(x: Tensor, group_ids: Tensor) -> Tensor:
    """Mean of ``x [B]`` over each group, one value for each member: ``[B]``."""
    index, counts = _groups(group_ids)
    sums = x.new_zeros(counts.shape[0]).index_add(0, index, x)
    return (sums / counts)[index]


def group_std(x: Tensor, group_ids: Tensor) -> Tensor:
    """Sample standard deviation (n − 1) over each group, for each member: ``[B]``; 0 in groups of one."""
    index, counts = _groups(group_ids)
    squares = (x - group_mean(x, group_ids)).square()
    sums = x.new_zeros(counts.shape[0]).index_add(0, index, squares)
    return (sums / (counts - 1).clamp(min=1)).sqrt()[index]


def zero_variance(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Mark ``[B]`` the members of groups in which every reward is the same."""
    index, counts = _groups(group_ids)
    empty = rewards.new_zeros(counts.shape[0])
    low = empty.scatter_reduce(0, index, rewards, "amin", include_self=False)
    high = empty.scatter_reduce(0, index, rewards, "amax", include_self=False)
    return (low == high)[index]


def grpo(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """``(R − mean_group) / (std_group + ε)``. GRPO, https://arxiv.org/abs/2402.03300."""
    return (rewards - group_mean(rewards, group_ids)) / (group_std(rewards, group_ids) + EPS)


def dr_grpo(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """``R − mean_group``, no division. Dr. GRPO, https://arxiv.org/abs/2503.20783."""
    return rewards - group_mean(rewards, group_ids)


def rloo(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """``R − mean of the group's others`` = ``G/(G−1)·(R − mean_group)``.

    RLOO, https://arxiv.org/abs/2402.14740. 0 in groups of one.
    """
    index, counts = _groups(group_ids)
    scale = counts / (counts - 1).clamp(min=1)
    return (rewards - group_mean(rewards, group_ids)) * scale[index]


def _whiten(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.std(correction=0) + EPS)


def reinforce_pp(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """``(R − mean_batch) / std_batch``. REINFORCE++, https://arxiv.org/abs/2501.03262."""
    return _whiten(rewards)


def reinforce_pp_baseline(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """``R − mean_group``, then whitened over the batch. REINFORCE++-baseline, arXiv 2501.03262."""
    return _whiten(rewards - group_mean(rewards, group_ids))


#: Estimators whose baseline is the group; with one completion a problem their advantage is always 0.
GROUP_ESTIMATORS = (grpo, dr_grpo, rloo, reinforce_pp_baseline)
