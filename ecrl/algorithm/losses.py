"""Surrogates and aggregations: pure functions of a token batch.

A surrogate maps tokens to a loss ``[N]`` to be minimised, and says which tokens it gives no gradient; an
aggregation maps the whole optimizer minibatch to the weight ``[N]`` of each token in the sum.
``r = exp(clamp(logπ − logπ_old, ±20))``, ``A`` is the advantage, ``sg`` stops the gradient. Bounds come with
the tokens (``tokens.low``, ``tokens.high``). A token's loss has a gradient in that token's log-prob only, so
that weights and advantages of single tokens act on single tokens, also where a ratio is of the whole
sequence.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ecrl.algorithm.token_batch import LOG_RATIO_LIMIT, TokenBatch


class SurrogateLoss(NamedTuple):
    """What a surrogate returns.

    Attributes:
        loss: ``[N]``, with gradient.
        clipped_low: ``[N]`` bool, tokens without gradient because the ratio is below the lower bound; None
            for none.
        clipped_high: ``[N]`` bool, the same above the upper bound.
    """

    loss: Tensor
    clipped_low: Tensor | None = None
    clipped_high: Tensor | None = None

    @property
    def clipped(self) -> Tensor:
        """``[N]`` bool: tokens without gradient."""
        none = torch.zeros_like(self.loss, dtype=torch.bool)
        low = none if self.clipped_low is None else self.clipped_low
        return low if self.clipped_high is None else low | self.clipped_high


def ppo_clip(tokens: TokenBatch, dual_clip: float | None = None) -> SurrogateLoss:
    """Clipped surrogate: ``max(−A·r, −A·clip(r, low, high))``.

    PPO, https://arxiv.org/abs/1707.06347; token-level as in GRPO, https://arxiv.org/abs/2402.03300.
    With ``dual_clip = c`` (https://arxiv.org/abs/1912.09729) the loss of a token with ``A < 0``
    is at most ``−c·A``, so a huge ratio cannot dominate.

    Args:
        tokens: ``N`` tokens.
        dual_clip: c > 1, or None for none.

    Raises:
        ValueError: ``dual_clip`` is not above 1.
    """
    if dual_clip is not None and not dual_clip > 1:
        raise ValueError(f"dual_clip must exceed 1, got {dual_clip}.")
    clipped = _clip(tokens, tokens.ratio)
    if dual_clip is None:
        return clipped
    beyond = (tokens.advantages < 0) & (tokens.ratio.detach() > dual_clip)
    bounded = torch.where(beyond, -dual_clip * tokens.advantages, clipped.loss)
    high = beyond if clipped.clipped_high is None else clipped.clipped_high | beyond
    return SurrogateLoss(bounded, clipped.clipped_low, high)


def _clip(tokens: TokenBatch, ratio: Tensor) -> SurrogateLoss:
    """PPO's clip of a ratio ``[N]``: no gradient beyond the bound in the advantage's direction."""
    clipped = ratio.clamp(tokens.low, tokens.high)  # a ratio on a bound keeps its gradient
    loss = torch.maximum(-tokens.advantages * ratio, -tokens.advantages * clipped)
    fixed = ratio.detach()
    low = (fixed < tokens.low) & (tokens.advantages < 0)
    high = (fixed > tokens.high) & (tokens.advantages > 0)
    return SurrogateLoss(loss, low, high)


def reinforce(tokens: TokenBatch) -> SurrogateLoss:
    """Policy gradient without importance ratio: ``−A·logπ``. Exact on-policy; bounds are not used."""
    return SurrogateLoss(-tokens.advantages * tokens.logprobs)


def gspo(tokens: TokenBatch) -> SurrogateLoss:
    """Clipped surrogate of the sequence's ratio, in its token form: PPO clip of ``sg(s)·π_t/sg(π_t)``.

        s = exp(mean_t(logπ_t − logπ_old,t))

    GSPO-token, https://arxiv.org/abs/2507.18071, section 4.3. Every token carries the sequence's ratio and
    its own gradient; with one advantage and one weight a sequence, value and gradient are those of the
    sequence form. Use it with the sequence-mean aggregation and bounds near 3e-4 and 4e-4.
    """
    mean = tokens.per_sequence_mean(tokens.log_ratio).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    sequence_ratio = mean.detach().exp()[tokens.sequence_ids]
    return _clip(tokens, sequence_ratio * (tokens.logprobs - tokens.logprobs.detach()).exp())


def cispo(tokens: TokenBatch) -> SurrogateLoss:
    """Clipped importance weight, full gradient: ``−sg(clip(r, low, high))·A·logπ``; no token is without
    gradient.

    CISPO, https://arxiv.org/abs/2506.13585.
    """
    weight = tokens.ratio.detach().clamp(tokens.low, tokens.high)
    return SurrogateLoss(-weight * tokens.advantages * tokens.logprobs)


def token_mean(tokens: TokenBatch) -> Tensor:
    """Every token counts the same: ``1/N`` (DAPO, https://arxiv.org/abs/2503.14476)."""
    return torch.full_like(tokens.old_logprobs, 1.0 / max(len(tokens), 1))


def sequence_mean(tokens: TokenBatch) -> Tensor:
    """Every sequence counts the same: ``1/(B·|y|)`` (GRPO, https://arxiv.org/abs/2402.03300)."""
    lengths = tokens.lengths
    return 1.0 / (lengths * max(tokens.num_sequences, 1))[tokens.sequence_ids]


def sequence_sum(tokens: TokenBatch) -> Tensor:
    """A sequence's tokens are summed: ``1/B``, so that Σ_t logπ_t is log π(y|x) (RLOO, https://arxiv.org/abs/2402.14740)."""
    return torch.full_like(tokens.old_logprobs, 1.0 / max(tokens.num_sequences, 1))


def constant(tokens: TokenBatch, length: float) -> Tensor:
    """A fixed length for every sequence: ``1/(B·length)`` (Dr. GRPO, https://arxiv.org/abs/2503.20783).

    Args:
        tokens: ``N`` tokens of ``B`` sequences.
        length: the constant, in tokens; usually the limit of new tokens.

    Raises:
        ValueError: ``length`` is not positive.
    """
    if not length > 0:
        raise ValueError(f"length must exceed 0 tokens, got {length}.")
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
    """``exp(−x) − 1 + x`` with x = clamp(logπ − logπ_ref, ±20): unbiased for KL(π‖π_ref), never negative.

    http://joschu.net/blog/kl-approx.html; used as GRPO's reference penalty. The clamp keeps exp finite.
    """
    x = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(-x) + x


KL_ESTIMATORS = {"abs": kl_abs, "k2": kl_k2, "k3": kl_k3}
