"""The covariances that drive policy entropy. https://arxiv.org/abs/2505.22617."""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.token_batch import TokenBatch


def token_covariance(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """``Cov_i = (logπ_i − mean_j logπ_j)·(A_i − mean_j A_j)``, means over all given tokens.

    Its mean is the covariance of log-probability and advantage; where that is positive, a policy
    gradient step lowers the entropy.

    Args:
        logprobs: ``[N]`` of the current policy, nats, over the whole optimizer minibatch.
        advantages: ``[N]``.

    Returns:
        ``[N]``, nats × the advantage's unit.
    """
    return (logprobs - logprobs.mean()) * (advantages - advantages.mean())


def entropy_discriminant(tokens: TokenBatch) -> Tensor:
    """``S_i = π_i·(logπ_i + H_i)``: which way the entropy goes when token i gains probability.

    To first order, raising the token's logit by ε changes the entropy by −ε·S: it falls for a token that is
    likelier than usual (logπ > −H) and rises for another. https://arxiv.org/abs/2602.03392.

    Args:
        tokens: ``N`` tokens with log-probs and entropies of the current policy.

    Returns:
        ``[N]``, nats.
    """
    return tokens.logprobs.exp() * (tokens.logprobs + tokens.entropy)


def response_covariance(tokens: TokenBatch, logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Cov over the responses y of each prompt x of ``logπ(y|x)/|y|`` and ``A(y)``: state x, action y.

    Args:
        tokens: ``N`` tokens of whole responses; a response's advantage is the mean of its tokens'.
        logprobs: ``[N]`` of the policy that drew them, nats.

    Returns:
        Group ids ``[P]``, ascending, of the prompts with two responses or more; covariances ``[P]``, nats ×
        the advantage's unit.
    """
    group = tokens.group_ids.new_empty(tokens.num_sequences)
    group = group.scatter(0, tokens.sequence_ids, tokens.group_ids)
    ids, member = torch.unique(group, return_inverse=True)
    sizes = torch.bincount(member, minlength=len(ids))

    def group_mean(x: Tensor) -> Tensor:
        return x.new_zeros(len(ids)).index_add(0, member, x) / sizes

    x, y = tokens.per_sequence_mean(logprobs), tokens.per_sequence_mean(tokens.advantages)
    covariance = group_mean((x - group_mean(x)[member]) * (y - group_mean(y)[member]))
    return ids[sizes > 1], covariance[sizes > 1]
