"""Surrogates and aggregations: pure functions of a token batch.

A surrogate maps tokens to a loss ``[N]`` to be minimised; an aggregation maps the whole optimizer
minibatch to the weight ``[N]`` of each token in the sum. ``r = exp(logπ − logπ_old)``, ``A`` is the
advantage, ``sg`` stops the gradient. Bounds come with the tokens (``tokens.low``, ``tokens.high``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.token_batch import TokenBatch


def ppo_clip(tokens: TokenBatch, dual_clip: float | None = None) -> Tensor:
    """Clipped surrogate: ``max(−A·r, −A·clip(r, low, high))``.

    PPO, https://arxiv.org/abs/1707.06347; token-level as in GRPO, https://arxiv.org/abs/2402.03300.
    With ``dual_clip = c`` (https://arxiv.org/abs/1912.09729) the loss of a token with ``A < 0``
    is at most ``−c·A``, so a huge ratio cannot dominate.

    Args:
        tokens: ``N`` tokens.
        dual_clip: c > 1, or None for none.

    Returns:
        ``[N]``.
    """
    ratio = tokens.log_ratio.exp()
    clipped = torch.minimum(torch.maximum(ratio, tokens.low), tokens.high)
    loss = torch.maximum(-tokens.advantages * ratio, -tokens.advantages * clipped)
    if dual_clip is None:
        return loss
    bounded = torch.minimum(loss, -dual_clip * tokens.advantages)
    return torch.where(tokens.advantages < 0, bounded, loss)


def reinforce(tokens: TokenBatch) -> Tensor:
    """Policy gradient without importance ratio: ``−A·logπ``. Exact on-policy; bounds are not used."""
    return -tokens.advantages * tokens.logprobs


def gspo(tokens: TokenBatch) -> Tensor:
    """Sequence-level clipped surrogate: PPO clip of ``s = exp(mean_t(logπ − logπ_old))``.

    GSPO, https://arxiv.org/abs/2507.18071. Every token of a sequence carries the
    sequence's loss; use it with the sequence-mean aggregation and bounds near 3e-4 and 4e-4.
    """
    sequence_ratio = tokens.per_sequence_mean(tokens.log_ratio).exp()
    ratio = sequence_ratio[tokens.sequence_ids]
    clipped = torch.minimum(torch.maximum(ratio, tokens.low), tokens.high)
    return torch.maximum(-tokens.advantages * ratio, -tokens.advantages * clipped)


def cispo(tokens: TokenBatch) -> Tensor:
    """Clipped importance weight, full gradient: ``−sg(clip(r, low, high))·A·logπ``.

    CISPO, https://arxiv.org/abs/2506.13585.
    """
    ratio = tokens.log_ratio.detach().exp()
    weight = torch.minimum(torch.maximum(ratio, tokens.low), tokens.high)
    return -weight * tokens.advantages * tokens.logprobs


def token_mean(tokens: TokenBatch) -> Tensor:
    """Every token counts the same: ``1/N`` (DAPO, https://arxiv.org/abs/2503.14476)."""
    return torch.full_like(tokens.old_logprobs, 1.0 / max(len(tokens), 1))


def sequence_mean(tokens: TokenBatch) -> Tensor:
    """Every sequence counts the same: ``1/(B·|y|)`` (GRPO, https://arxiv.org/abs/2402.03300)."""
    lengths = tokens.lengths
    return 1.0 / (lengths * max(tokens.num_sequences, 1))[tokens.sequence_ids]


def constant(tokens: TokenBatch, length: float) -> Tensor:
    """A fixed length for every sequence: ``1/(B·length)`` (Dr. GRPO, https://arxiv.org/abs/2503.20783).

    Args:
        tokens: ``N`` tokens of ``B`` sequences.
        length: the constant, in tokens; usually the limit of new tokens.
    """
    return torch.full_like(tokens.old_logprobs, 1.0 / (length * max(tokens.num_sequences, 1)))


def kl_abs(log_ratio: Tensor) -> Tensor:
    """``|logπ − logπ_ref|``: the estimator in the public code of KL-Cov (not a KL's gradient)."""
    return log_ratio.abs()


def kl_k2(log_ratio: Tensor) -> Tensor:
    """``½(logπ − logπ_ref)²``; its gradient is that of KL(π‖π_ref) on samples of π.

    http://joschu.net/blog/kl-approx.html
    """
    return 0.5 * log_ratio.square()


def kl_k3(log_ratio: Tensor) -> Tensor:
    """``exp(−x) − 1 + x`` with x = logπ − logπ_ref: unbiased for KL(π‖π_ref), never negative.

    http://joschu.net/blog/kl-approx.html; used as GRPO's reference penalty.
    """
    return torch.expm1(-log_ratio) + log_ratio


KL_ESTIMATORS = {"abs": kl_abs, "k2": kl_k2, "k3": kl_k3}
