"""Masked ``[B, T]`` tensors, as other trainers have them, as our flat ``TokenBatch``; and what fits there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan, planned_loss
from ecrl.algorithm.objective import Bounds, Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import UsageError
from ecrl.training.observer import RolloutObserver


def token_batch(
    mask: Tensor,
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    entropy: Tensor | None = None,
    engine_logprobs: Tensor | None = None,
    token_ids: Tensor | None = None,
    bounds: Bounds | None = None,
    key: int = 0,
) -> TokenBatch:
    """Flatten the tokens that train; rows without any are left out.

    Args:
        mask: ``[B, T]``, not 0 at the tokens that train.
        logprobs: ``[B, T]`` of the current policy, nats.
        old_logprobs: ``[B, T]`` of the policy at rollout time, nats.
        advantages: ``[B]`` or ``[B, T]``.
        entropy: ``[B, T]`` of the current policy, nats; None where the trainer has none (then NaN).
        engine_logprobs: ``[B, T]`` that the engine drew with, nats; None for ``old_logprobs``.
        token_ids: ``[B, T]`` long; None where the trainer has none (then 0).
        bounds: of the importance ratio; None takes [0.8, 1.2].
        key: hash key of the optimizer step, for reproducible draws.
    """
    kept = mask != 0
    rows, columns = kept.nonzero(as_tuple=True)
    if advantages.dim() == 1:
        advantages = advantages[:, None].expand(kept.shape)

    def flat(values: Tensor) -> Tensor:
        return values[kept]

    old, bounds = flat(old_logprobs).float(), bounds or Bounds()
    _, sequence_ids = torch.unique(rows, return_inverse=True)
    return TokenBatch(
        token_ids=torch.zeros_like(rows) if token_ids is None else flat(token_ids),
        logprobs=flat(logprobs).float(),
        entropy=torch.full_like(old, torch.nan) if entropy is None else flat(entropy).float(),
        old_logprobs=old,
        engine_logprobs=old if engine_logprobs is None else flat(engine_logprobs).float(),
        advantages=flat(advantages).float(),
        sequence_ids=sequence_ids,
        positions=columns,
        group_ids=rows,
        uid=rows,
        low=torch.full_like(old, 1 - bounds.low),
        high=torch.full_like(old, 1 + bounds.high),
        clipped=torch.zeros_like(old, dtype=torch.bool),
        key=key,
    )


def concatenated(parts: Sequence[TokenBatch]) -> TokenBatch:
    """Join batches into one; their sequences stay apart."""
    rows = uids = 0
    apart = []
    for part in parts:
        apart.append(
            replace(
                part,
                sequence_ids=part.sequence_ids + rows,
                uid=part.uid + uids,
                group_ids=part.group_ids + uids,
            )
        )
        rows, uids = rows + part.num_sequences, uids + (int(part.uid.max()) + 1 if len(part) else 0)
    joined: Any = {name: torch.cat([getattr(part, name) for part in apart]) for name in _tensors(parts[0])}
    return replace(parts[0], **joined)


def _tensors(tokens: TokenBatch) -> list[str]:
    """Names of the fields that are tensors ``[N]``."""
    return [f.name for f in fields(tokens) if isinstance(getattr(tokens, f.name), Tensor)]


def detached(tokens: TokenBatch) -> TokenBatch:
    """The same tokens without gradient, as planning takes them."""
    return replace(tokens, logprobs=tokens.logprobs.detach(), entropy=tokens.entropy.detach())


def named(strategies: Sequence[Strategy]) -> list[Strategy]:
    """Name strategies that were made from Python, by their class; a second of a class gets a number."""
    seen: dict[str, int] = {}
    for strategy in strategies:
        if not strategy.name:
            base = type(strategy).__name__
            seen[base] = number = seen.get(base, 0) + 1
            strategy.name = base if number == 1 else f"{base}_{number}"
    return list(strategies)


def check_fit(strategies: Sequence[Strategy], trainer: str, *, entropy: bool) -> list[Strategy]:
    """Name the strategies, and refuse those that need what another trainer does not hand over.

    Args:
        strategies: of the stack, in order.
        trainer: its name, for messages.
        entropy: whether it hands over entropies, with their gradient.

    Raises:
        UsageError: one is no strategy, or needs more than log-probs and advantages of the rollout.
    """
    for strategy in strategies:
        if not isinstance(strategy, Strategy):
            raise UsageError(f"strategies takes ecrl's strategies, such as KLCov(); got {strategy!r}.")
    for strategy in named(strategies):
        name, lacks = strategy.name, ""
        if isinstance(strategy, RolloutObserver):
            lacks = "watches ecrl's rollouts"
        elif strategy.needs_reference or type(strategy).extra_columns is not Strategy.extra_columns:
            lacks = "needs log-probs of another policy"
        elif not entropy and reads_entropy(strategy):
            lacks = "needs the policy's entropies"
        if lacks:
            raise UsageError(f"{name} {lacks}, which {trainer} does not hand over; use it in `ecrl train`.")
    return list(strategies)


def reads_entropy(strategy: Strategy) -> bool:
    """Whether a strategy's part of the loss depends on the tokens' entropies: tried on random tokens."""
    draw = torch.Generator().manual_seed(0)
    logprobs, old = -torch.rand(2, 8, 16, generator=draw)
    advantages = torch.randn(8, generator=draw)
    losses = []
    for entropies in torch.rand(2, 8, 16, generator=draw):
        tokens = token_batch(torch.ones(8, 16), logprobs, old, advantages, entropy=entropies)
        plan = make_loss_plan(tokens, Objective(), [strategy])
        losses.append(planned_loss(plan.tokens, plan, Objective(), [strategy]))
    return not torch.equal(losses[0], losses[1])


def moved(value: TokenBatch, device: torch.device) -> TokenBatch:
    """The same tokens on another device."""
    on_device: Any = {name: getattr(value, name).to(device) for name in _tensors(value)}
    return replace(value, **on_device)


def metrics_of(plan: LossPlan, strategies: Sequence[Strategy]) -> dict[str, float]:
    """What each strategy did: its share of changed tokens, and the number that it adapts or applies."""
    shares = {f"strategy/{name}/changed_fraction": share for name, share in plan.changed_fraction.items()}
    numbers = {f"strategy/{s.name}/coefficient": s.logged_coefficient() for s in strategies}
    return shares | {name: number for name, number in numbers.items() if number is not None}
