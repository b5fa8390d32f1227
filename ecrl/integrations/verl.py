"""The strategies in verl: a policy loss under a name of its own.

    from ecrl.callbacks import ClipCov
    from ecrl.integrations.verl import register

    register("ecrl_clip_cov", [ClipCov()])  # in the module of actor_rollout_ref.model.external_lib

    actor_rollout_ref.actor.policy_loss.loss_mode=ecrl_clip_cov

verl calls a policy loss for each micro-batch, so the plan is made over one micro-batch: shares of the tokens
and means of the covariance are of that, as with verl's own ``clip_cov`` and ``kl_cov``. Larger micro-batches
(``ppo_micro_batch_size_per_gpu``) come nearer to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo import core_algos

from ecrl.algorithm.loss_plan import make_loss_plan, token_losses
from ecrl.algorithm.objective import Bounds, Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.hashing import hash_u64
from ecrl.integrations.masked import check_fit, detached, metrics_of, token_batch


def register(name: str, strategies: Sequence[Strategy], objective: Objective | None = None) -> None:
    """Register a policy loss; verl aggregates it by ``loss_agg_mode``, and its clip range is verl's.

    Args:
        name: for ``policy_loss.loss_mode``.
        strategies: applied in this order.
        objective: its surrogate is used; None takes the clipped one.

    Raises:
        UsageError: a strategy needs more than verl hands to a policy loss, such as entropies.
    """
    stack, surrogate, calls = check_fit(strategies, "verl", entropy=False), objective or Objective(), count()

    @core_algos.register_policy_loss(name)  # type: ignore[untyped-decorator]
    def policy_loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        tokens = token_batch(
            response_mask, log_prob, old_log_prob, advantages,
            bounds=_bounds(config), key=int(hash_u64(next(calls))) >> 1,
        )  # fmt: skip
        plan = make_loss_plan(detached(tokens), surrogate, stack)
        current = replace(plan.tokens, logprobs=tokens.logprobs)
        losses = torch.zeros_like(log_prob).masked_scatter(
            response_mask != 0, token_losses(current, plan, surrogate, stack).to(log_prob.dtype)
        )
        if rollout_is_weights is not None:
            losses = losses * rollout_is_weights
        loss = core_algos.agg_loss(
            loss_mat=losses, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
        )
        moved = -current.log_ratio.detach().mean()
        metrics = {f"actor/{key}": value for key, value in metrics_of(plan, stack).items()}
        return loss, {**metrics, "actor/ppo_kl": float(moved)}


def _bounds(config: Any) -> Bounds:
    low, high = config.clip_ratio_low, config.clip_ratio_high
    return Bounds(
        config.clip_ratio if low is None else low,
        config.clip_ratio if high is None else high,
    )
