"""Advantage estimators: pure functions of a rollout's episodes.

An estimator maps ``B`` episodes with ``N`` own tokens to advantages: ``[B]``, one for all tokens of an
episode, or ``[N]``, one for each token. Means and deviations are taken in float64, where the mean of equal
rewards is that reward, so that a group without contrast gets exactly 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.episodes import Episodes
from ecrl.algorithm.process_reward import PROCESS_REWARDS

EPS = 1e-6


def _groups(group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return each element's dense group index ``[B]`` and the group sizes ``[groups]``, as float."""
    _, index, counts = torch.unique(group_ids, return_inverse=True, return_counts=True)
    return index, counts


def group_mean(x: Tensor, group_ids: Tensor) -> Tensor:
    """Mean of ``x [B]`` over each group, one value for each member: ``[B]``, float64."""
    index, counts = _groups(group_ids)
    sums = x.new_zeros(counts.shape[0], dtype=torch.float64).index_add(0, index, x.double())
    return (sums / counts)[index]


def group_std(x: Tensor, group_ids: Tensor) -> Tensor:
    """Sample standard deviation (n − 1) of each member's group: ``[B]``, float64; 0 in groups of one."""
    index, counts = _groups(group_ids)
    squares = (x - group_mean(x, group_ids)).square()
    sums = x.new_zeros(counts.shape[0], dtype=torch.float64).index_add(0, index, squares)
    return (sums / (counts - 1).clamp(min=1)).sqrt()[index]


def leave_one_out(x: Tensor, group_ids: Tensor) -> Tensor:
    """``x − mean of the group's others`` = ``G/(G−1)·(x − mean_group)``: ``[B]``; 0 in groups of one."""
    index, counts = _groups(group_ids)
    scale = counts / (counts - 1).clamp(min=1)
    return (x - group_mean(x, group_ids)) * scale[index]


def zero_variance(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Mark ``[B]`` the members of groups in which every reward is the same."""
    index, counts = _groups(group_ids)
    empty = rewards.new_zeros(counts.shape[0])
    low = empty.scatter_reduce(0, index, rewards, "amin", include_self=False)
    high = empty.scatter_reduce(0, index, rewards, "amax", include_self=False)
    return (low == high)[index]


def grpo(episodes: Episodes) -> Tensor:
    """``(R − mean_group) / (std_group + ε)``, ``[B]``. GRPO, https://arxiv.org/abs/2402.03300."""
    rewards, groups = episodes.rewards, episodes.group_ids
    return (rewards - group_mean(rewards, groups)) / (group_std(rewards, groups) + EPS)


def dr_grpo(episodes: Episodes) -> Tensor:
    """``R − mean_group``, no division, ``[B]``. Dr. GRPO, https://arxiv.org/abs/2503.20783."""
    return episodes.rewards - group_mean(episodes.rewards, episodes.group_ids)


def rloo(episodes: Episodes) -> Tensor:
    """``R − mean of the group's others``, ``[B]``; 0 in groups of one. RLOO, https://arxiv.org/abs/2402.14740."""
    return leave_one_out(episodes.rewards, episodes.group_ids)


def reinforce_pp(episodes: Episodes) -> Tensor:
    """Return from each token on, whitened over all tokens of the batch: ``[N]``.

        A_t = (G_t − mean_tokens G) / (std_tokens G + ε)        G_t = Σ_{s≥t} r_s

    REINFORCE++, https://arxiv.org/abs/2501.03262. Where the reward comes at the end, G is the episode's
    reward at every token; in several turns a token is credited with the rewards of its own turn and of later
    ones.
    """
    return _whiten(episodes.returns(episodes.token_rewards))


def reinforce_pp_baseline(episodes: Episodes) -> Tensor:
    """``R − mean_group``, then whitened over all tokens of the batch: ``[N]``.

    REINFORCE++-baseline, https://arxiv.org/abs/2501.03262.
    """
    return _whiten(dr_grpo(episodes)[episodes.sequence_ids])


def prime(episodes: Episodes, coefficient: float = 1.0, whiten: bool = False) -> Tensor:
    """Leave-one-out of process rewards and of outcomes, ``[N]``. PRIME, https://arxiv.org/abs/2502.01456.

        A_t = c·Σ_{s≥t} [r_s − mean over the group's others of their mean r] + R − mean of the others' R

    It needs the column ``process_rewards`` r, ``[N]``.

    Args:
        episodes: ``B`` episodes.
        coefficient: c, weight of the process rewards, not negative.
        whiten: whiten over all tokens of the batch, as the authors' public code does.

    Raises:
        ValueError: ``coefficient`` is negative.
    """
    if not coefficient >= 0:
        raise ValueError(f"prime: coefficient must not be negative, got {coefficient}.")
    process = episodes.columns[PROCESS_REWARDS]
    means = episodes.per_episode_sum(process) / episodes.lengths
    others = means - leave_one_out(means, episodes.group_ids)
    returns = episodes.returns(process - others[episodes.sequence_ids])
    advantages = coefficient * returns + rloo(episodes)[episodes.sequence_ids]
    return _whiten(advantages) if whiten else advantages


def _whiten(x: Tensor) -> Tensor:
    x = x.double()
    return (x - x.mean()) / (x.std(correction=0) + EPS)


#: Estimators whose baseline is the group; with one completion a problem their advantage is always 0.
GROUP_ESTIMATORS = (grpo, dr_grpo, rloo, reinforce_pp_baseline, prime)
