"""Reward shaping: pure functions that map episodes to a bonus or penalty ``[B]``, added to the rewards.

An objective's ``shaping`` is a list of them, applied in order; each sees the rewards that the ones before it
left. What they add arrives at each episode's last token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.episodes import Episodes
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS
from ecrl.algorithm.token_batch import ROUNDING


def overlong_penalty(episodes: Episodes, limit: int, buffer: int) -> Tensor:
    """Soft overlong punishment: 0 up to ``limit − buffer`` tokens, then linear, −1 from ``limit`` on.

        −clamp((|y| − (limit − buffer)) / buffer, 0, 1)

    DAPO, https://arxiv.org/abs/2503.14476, section 3.4.

    Args:
        episodes: ``B`` episodes.
        limit: the longest response, in tokens; usually ``rollout.max_new_tokens``.
        buffer: the last tokens before it, that cost; in [1, limit].

    Raises:
        ValueError: ``buffer`` lies outside [1, limit].
    """
    if not 1 <= buffer <= limit:
        raise ValueError(f"overlong_penalty: buffer must lie in [1, limit={limit}] tokens, got {buffer}.")
    return -((episodes.lengths - (limit - buffer)) / buffer).clamp(0, 1).to(episodes.rewards.dtype)


def length_penalty(episodes: Episodes, coefficient: float) -> Tensor:
    """Every token costs the same: ``−coefficient·|y|``.

    Args:
        episodes: ``B`` episodes.
        coefficient: cost of a token, not negative.

    Raises:
        ValueError: ``coefficient`` is negative.
    """
    if not coefficient >= 0:
        raise ValueError(f"length_penalty: coefficient must not be negative, got {coefficient}.")
    return -coefficient * episodes.lengths.to(episodes.rewards.dtype)


def kl_penalty(episodes: Episodes, coefficient: float) -> Tensor:
    """Reference KL in the reward: ``−coefficient·Σ_t (log π_old − log π_ref)``, the k1 estimate of
    KL(π_old‖π_ref).

    https://arxiv.org/abs/2203.02155. It needs the column ``reference_logprobs``.

    Args:
        episodes: ``B`` episodes.
        coefficient: β, not negative.

    Raises:
        ValueError: ``coefficient`` is negative.
    """
    if not coefficient >= 0:
        raise ValueError(f"kl_penalty: coefficient must not be negative, got {coefficient}.")
    distance = episodes.logprobs - episodes.columns[REFERENCE_LOGPROBS]
    return -coefficient * episodes.per_episode_sum(distance)


def unlikeliness(episodes: Episodes, coefficient: float = 0.25) -> Tensor:
    """Likely responses earn less: ``−β·R·rank/G``, so that R becomes ``R·(1 − β·rank/G)``. Neutral: β = 0.

    https://arxiv.org/abs/2506.02355. The rank counts the group's G responses that are less likely by their
    mean log π_old over tokens, as in the authors' public code; responses that are equally likely share the
    mean of their ranks. The paper makes two passes over a rollout: ``update.epochs=2``.

    Args:
        episodes: ``B`` episodes.
        coefficient: β, in [0, 1].

    Raises:
        ValueError: ``coefficient`` lies outside [0, 1].
    """
    if not 0 <= coefficient <= 1:
        raise ValueError(f"unlikeliness: coefficient must lie in [0, 1], got {coefficient}.")
    means = episodes.per_episode_sum(episodes.logprobs) / episodes.lengths
    share = torch.zeros_like(episodes.rewards)
    for members in episodes.groups():
        above = means[members][:, None] - means[members][None, :]
        less_likely = (above > ROUNDING).sum(1) + ((above.abs() <= ROUNDING).sum(1) - 1) / 2
        share[members] = (less_likely / len(members)).to(share.dtype)
    return -coefficient * episodes.rewards * share


#: Functions that read ``reference_logprobs``; a run then scores the rollout with the initial policy.
NEEDS_REFERENCE = (kl_penalty,)
