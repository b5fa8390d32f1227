"""Advantage estimators: pure functions of a rollout's episodes.

An estimator maps ``B`` episodes with ``N`` own tokens to advantages: ``[B]``, one for all tokens of an
episode, or ``[N]``, one for each token. Means and deviations are taken in float64, where the mean of equal
rewards is that reward, so that a group without contrast gets exactly 0.
"""

from __future__ import annotations

from math import ceil, comb

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


def quantile_baseline(episodes: Episodes, quantile: float = 0.4) -> Tensor:
    """``(R − Q_K) / (std_group + ε)``, ``[B]``. QAE, https://arxiv.org/abs/2509.22611.

        Q_K = the smallest reward of the group that at least K·G of its G rewards do not exceed

    With rewards 0 and 1 a problem solved by at most 1 − K of its group trains on the right responses only, an
    easier one on the wrong ones only. The authors' public code interpolates between two rewards where K·G is
    no whole number.

    Args:
        episodes: ``B`` episodes.
        quantile: K, in (0, 1).

    Raises:
        ValueError: ``quantile`` lies outside (0, 1).
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile_baseline: quantile must lie in (0, 1), got {quantile}.")
    rewards = episodes.rewards.double()
    advantages = torch.zeros_like(rewards)
    for members in episodes.groups():
        rank = max(ceil(quantile * len(members) - 1e-9), 1)  # 1e-9: 0.6 * 5 may be 3.000…1
        advantages[members] = rewards[members] - rewards[members].sort().values[rank - 1]
    return advantages / (group_std(episodes.rewards, episodes.group_ids) + EPS)


def w_reinforce(episodes: Episodes, positive: float = 0.1) -> Tensor:
    """``λ·R`` for a right response (R ≥ 1), ``R − 1`` for another, ``[B]``. No baseline.

    W-REINFORCE, https://arxiv.org/abs/2506.01347. λ = 0 is NSR, which learns from wrong responses only; λ = 1
    is REINFORCE with rewards of 1 and −1.

    Args:
        episodes: ``B`` episodes.
        positive: λ, weight of the right responses, not negative.

    Raises:
        ValueError: ``positive`` is negative.
    """
    if not positive >= 0:
        raise ValueError(f"w_reinforce: positive must not be negative, got {positive}.")
    rewards = episodes.rewards
    return torch.where(rewards >= 1, positive * rewards, rewards - 1)


def max_rl(episodes: Episodes) -> Tensor:
    """``(R − mean_group) / (mean_group + ε)``, ``[B]``. MaxRL, https://arxiv.org/abs/2602.02710.

    Rewards are not negative. A problem weighs more, the more rarely it is solved.
    """
    mean = group_mean(episodes.rewards, episodes.group_ids)
    return (episodes.rewards - mean) / (mean + EPS)


def opo(episodes: Episodes) -> Tensor:
    """``R − Σ|y|·R / Σ|y|``, sums over the group, ``[B]``. OPO, https://arxiv.org/abs/2505.23585.

    The baseline of least variance, if a response's squared gradient grows as its length. The paper makes one
    update a rollout: ``update.minibatches=1``.
    """
    lengths, groups = episodes.lengths.double(), episodes.group_ids
    baseline = group_mean(lengths * episodes.rewards, groups) / group_mean(lengths, groups)
    return episodes.rewards - baseline


def pkpo(episodes: Episodes, k: int = 4) -> Tensor:
    """Gradient weights of max@k, the expected largest of k rewards, ``[B]``. PKPO.

        A_i = G/C(G, k) · Σ_{I ∋ i, |I| = k} [max_{j ∈ I} R_j − max_{j ∈ I, j ≠ i} R_j]
            = G/C(G, k) · Σ_{j: R_j < R_i} C(rank_j, k−2)·(R_i − R_j)      rank_j of the rewards are lower

    https://arxiv.org/abs/2505.15201, the estimator s^(loo−1), times G since losses are means. With rewards 0
    and 1 and c right responses it is G·C(G−c, k−1)/C(G, k) for a right one, and 0 for a wrong one. A group of
    fewer than k has advantage 0. The paper trains with several k; no default was found.

    Args:
        episodes: ``B`` episodes.
        k: number of attempts, at least 2; for 1 it is ``rloo`` that has a baseline.

    Raises:
        ValueError: ``k`` is below 2.
    """
    if not k >= 2:
        raise ValueError(f"pkpo: k must be at least 2, got {k}; for k=1 use objective=rloo.")
    advantages = torch.zeros_like(episodes.rewards, dtype=torch.float64)
    for members in episodes.groups():
        size = len(members)
        if size < k:
            continue
        rewards = episodes.rewards[members].double().sort()
        below = rewards.values[:, None] - rewards.values[None, :]
        subsets = torch.tensor([comb(rank, k - 2) for rank in range(size)], dtype=torch.float64)
        advantages[members[rewards.indices]] = below.clamp(min=0) @ subsets * (size / comb(size, k))
    return advantages


def pass_at_k(episodes: Episodes, k: int = 4) -> Tensor:
    """Advantage of an average group of k responses, ``[B]``. Pass@k training.

        P = 1 − C(G−c, k)/C(G, k)        σ = √(P·(1 − P))        c right responses (R ≥ 1) of G
        A_right = (1 − P)/(σ + ε)        A_wrong = (1 − P − C(G−c−1, k−1)/C(G−1, k−1))/(σ + ε)

    https://arxiv.org/abs/2508.10751, the analytical form: groups of k are drawn from the G responses, a group
    earns 1 if one of it is right, and a response has the mean of its groups' advantages. A problem with fewer
    than k responses has advantage 0. No default of k was found.

    Args:
        episodes: ``B`` episodes.
        k: size of the groups, at least 1; k = 1 is GRPO with the population's deviation.

    Raises:
        ValueError: ``k`` is below 1.
    """
    if not k >= 1:
        raise ValueError(f"pass_at_k: k must be at least 1, got {k}.")
    right = episodes.rewards >= 1
    advantages = torch.zeros_like(episodes.rewards, dtype=torch.float64)
    for members in episodes.groups():
        size, wrong = len(members), int((~right[members]).sum())
        if size < k:
            continue
        missed = comb(wrong, k) / comb(size, k)
        deviation = (missed * (1 - missed)) ** 0.5 + EPS
        others_missed = comb(wrong - 1, k - 1) / comb(size - 1, k - 1) if wrong else 0.0
        of_right, of_wrong = missed / deviation, (missed - others_missed) / deviation
        advantages[members] = torch.where(right[members], of_right, of_wrong).double()
    return advantages


def _whiten(x: Tensor) -> Tensor:
    x = x.double()
    return (x - x.mean()) / (x.std(correction=0) + EPS)


#: Estimators whose baseline is the group; with one completion a problem their advantage is always 0.
GROUP_ESTIMATORS = (
    grpo, dr_grpo, rloo, reinforce_pp_baseline, prime, quantile_baseline, max_rl, opo,
)  # fmt: skip
#: Estimators of what ``k`` completions of a problem earn; with fewer of them their advantage is always 0.
AT_K_ESTIMATORS = (pkpo, pass_at_k)
