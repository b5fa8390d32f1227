"""Surrogates that hold the policy near the old one otherwise than by PPO's clip.

They keep the contract of ``ecrl.algorithm.losses``: ``r`` is the ratio, ``A`` the advantage, ``sg`` stops the
gradient, and bounds come with the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.losses import SurrogateLoss
from ecrl.algorithm.token_batch import LOG_RATIO_LIMIT, TokenBatch

DIVERGENCES = ("tv", "kl")


def sapo(tokens: TokenBatch, positive: float = 1.0, negative: float = 1.05) -> SurrogateLoss:
    """A soft gate in place of the clip: ``−A·(4/τ)·σ(τ·(r − 1))``; bounds are not used.

        τ = τ₊ where A > 0, else τ₋        gradient −A·4σ(1 − σ)·r·∇logπ

    4σ(1 − σ) is 1 at r = 1 and falls on either side. SAPO, https://arxiv.org/abs/2511.20347; use it with the
    sequence mean, as there.

    Args:
        tokens: ``N`` tokens.
        positive: τ₊, above 0.
        negative: τ₋, above 0; the larger, the sooner the gradient of wrong responses fades.

    Raises:
        ValueError: a temperature is not above 0.
    """
    for name, value in (("positive", positive), ("negative", negative)):
        if not value > 0:
            raise ValueError(f"sapo: {name} must exceed 0, got {value}.")
    ratio, advantages = tokens.ratio, tokens.advantages
    sharpness = torch.where(advantages > 0, ratio.new_tensor(positive), ratio.new_tensor(negative))
    gate = torch.sigmoid(sharpness * (ratio - 1))
    flat = gate.detach() == 1  # so far above 1 that its derivative is 0 in floating point
    return SurrogateLoss(-advantages * 4 / sharpness * gate, clipped_high=flat)


def gmpo(tokens: TokenBatch) -> SurrogateLoss:
    """Geometric mean of a sequence's clipped ratios, in token form: ``−A·sg(s)·π_t/sg(π_t)``.

        s = exp(mean_t x̂_t)      x̂ = min(x, log high) where A > 0, max(x, log low) where A < 0      x = log r

    A clipped token has no gradient of its own; what it adds to s is its bound. GMPO,
    https://arxiv.org/abs/2507.20673. Every token carries the sequence's mean and its own gradient; with one
    advantage and one weight a sequence, value and gradient are those of the sequence form. Use it with the
    sequence mean and bounds of e^±0.4.
    """
    x = tokens.log_ratio.detach().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    low, high = tokens.low.log(), tokens.high.log()
    below, above = (x < low) & (tokens.advantages < 0), (x > high) & (tokens.advantages > 0)
    bounded = torch.where(below, low, torch.where(above, high, x))
    mean = tokens.per_sequence_mean(bounded).exp()[tokens.sequence_ids]
    step = (tokens.logprobs - tokens.logprobs.detach()).exp()
    loss = -tokens.advantages * mean * torch.where(below | above, 1.0, step)
    return SurrogateLoss(loss, below, above)


def dppo(tokens: TokenBatch, divergence: str = "tv", limit: float = 0.15) -> SurrogateLoss:
    """``−A·r``, without gradient where π moved too far in the advantage's direction; bounds are not used.

        tv    D = |π − q|                                     q = π_old of the sampled token
        kl    D = q·log(q/π) + (1 − q)·log((1 − q)/(1 − π))
        no gradient where D > δ, and A > 0 and π > q, or A < 0 and π < q

    DPPO with binary divergences, https://arxiv.org/abs/2602.04879. A ratio's clip binds first where q is
    small; this one binds where probability moved. There q is what the engine drew with: that is
    ``rollout.old_logprobs=engine``.

    Args:
        tokens: ``N`` tokens.
        divergence: ``tv`` or ``kl`` (nats).
        limit: δ, above 0; the paper's are 0.15 to 0.2 for ``tv``, 0.05 for ``kl``.

    Raises:
        ValueError: no such divergence, or ``limit`` is not above 0.
    """
    if divergence not in DIVERGENCES:
        raise ValueError(f"dppo: divergence takes one of {', '.join(DIVERGENCES)}, got {divergence!r}.")
    if not limit > 0:
        raise ValueError(f"dppo: limit must exceed 0, got {limit}.")
    new, old = tokens.logprobs.detach(), tokens.old_logprobs
    distance = (new.exp() - old.exp()).abs() if divergence == "tv" else _binary_kl(old, new)
    far = distance > limit
    below, above = far & (new < old) & (tokens.advantages < 0), far & (new > old) & (tokens.advantages > 0)
    ratio = torch.where(below | above, tokens.ratio.detach(), tokens.ratio)
    return SurrogateLoss(-tokens.advantages * ratio, below, above)


def _binary_kl(old: Tensor, new: Tensor) -> Tensor:
    """KL of (q, 1 − q) from (π, 1 − π), ``[N]``, nats, of log q and log π."""
    rest_old, rest_new = (
        (-torch.expm1(x)).clamp(min=0) + 1e-8  # a sure token leaves no rest
        for x in (old, new)
    )
    return old.exp() * (old - new) + rest_old * (rest_old.log() - rest_new.log())


def aspo(tokens: TokenBatch, cap: float = 3.0) -> SurrogateLoss:
    """Right tokens weighed by 1/r: ``−A·sg(w/r)·r``.

        A > 0:  w = min(1/r, c)      no gradient where r > high
        A < 0:  w = min(r, c)        no gradient where r < low

    With A > 0 PPO's weight r is least for the tokens that became less likely; this one is largest. ASPO,
    https://arxiv.org/abs/2510.06062, whose clip range is 0.2, and 0.4 for the fifth of the tokens with the
    highest entropy.

    Args:
        tokens: ``N`` tokens.
        cap: c, above 1; a weight at the cap keeps its gradient.

    Raises:
        ValueError: ``cap`` is not above 1.
    """
    if not cap > 1:
        raise ValueError(f"aspo: cap must exceed 1, got {cap}.")
    ratio, right = tokens.ratio, tokens.advantages > 0
    fixed = ratio.detach()
    below, above = (fixed < tokens.low) & (tokens.advantages < 0), (fixed > tokens.high) & right
    bounded = torch.where(below, tokens.low, torch.where(above, tokens.high, fixed))
    weight = torch.where(right, 1 / bounded, bounded).clamp(max=cap)
    step = torch.where(below | above, 1.0, ratio / fixed)
    return SurrogateLoss(-tokens.advantages * weight * step, below, above)


def ce_gppo(tokens: TokenBatch, below: float = 0.75, above: float = 1.0) -> SurrogateLoss:
    """PPO's clip that keeps a bounded gradient outside: ``−A·sg(w/r)·r``.

        w = β₁·low where A < 0 and r < low,   β₂·high where A > 0 and r > high,   else r

    CE-GPPO, https://arxiv.org/abs/2509.20712. Neutral: β₁ = β₂ = 0, whose gradient is PPO's. β₁ lowers the
    entropy, β₂ raises it. The authors' public code also has a dual clip, as ``losses.ppo_clip`` has.

    Args:
        tokens: ``N`` tokens.
        below: β₁, not negative.
        above: β₂, not negative.

    Raises:
        ValueError: a number is negative.
    """
    for name, value in (("below", below), ("above", above)):
        if not value >= 0:
            raise ValueError(f"ce_gppo: {name} must not be negative, got {value}.")
    ratio, advantages = tokens.ratio, tokens.advantages
    fixed = ratio.detach()
    low, high = (fixed < tokens.low) & (advantages < 0), (fixed > tokens.high) & (advantages > 0)
    weight = torch.where(low, below * tokens.low, torch.where(high, above * tokens.high, fixed))
    loss = -advantages * weight * (ratio / fixed)
    return SurrogateLoss(loss, low if below == 0 else None, high if above == 0 else None)
