"""The strategies in prime-rl: a custom loss.

    [trainer.loss]
    type = "custom"
    import_path = "ecrl.integrations.prime_rl.policy_loss"

    [trainer.loss.kwargs]
    overrides = ["strategy=[kl_cov]", "strategy.kl_cov.fraction=0.01"]

prime-rl hands a loss one sequence at a time, whose tokens share their advantage, so that within it no
covariance shows. Therefore the plan is made over this sequence and the last ones before it, ``window`` tokens
in all: means and shares are of those. They are of this process alone. There are no entropies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import make_loss_plan, planned_loss
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.compose import build_config
from ecrl.config.targets import build
from ecrl.errors import UsageError
from ecrl.hashing import hash_u64
from ecrl.integrations.masked import check_fit, concatenated, detached, metrics_of, token_batch


def policy_loss(inputs: Any, overrides: Sequence[str] = (), window: int = 65536) -> Any:
    """Compute the loss of one sequence; prime-rl divides by the number of tokens of the batch.

    Args:
        inputs: prime-rl's ``LossInputs``.
        overrides: strategies and objective, as words of ``ecrl train``; the objective's surrogate and bounds
            are used.
        window: tokens over which is planned, those of this sequence included.

    Returns:
        prime-rl's ``LossOutputs``.

    Raises:
        UsageError: a strategy needs more than prime-rl hands over, or the words cannot be read.
    """
    from prime_rl.trainer.rl.loss import LossOutputs

    loss, metrics = _recent(tuple(overrides), window).loss(inputs)
    return LossOutputs(loss=loss, metrics={name: torch.tensor(value) for name, value in metrics.items()})


class RecentTokens:
    """Plans over the tokens of a sequence and of the last ones before it.

    Args:
        overrides: strategies and objective.
        window: tokens that are planned over.
    """

    def __init__(self, overrides: Sequence[str], window: int) -> None:
        if window < 1:
            raise UsageError(f"window must be at least 1 token, got {window}.")
        config = build_config(list(overrides))
        objective: Objective = build(config.objective)
        self._objective = replace(objective, aggregation=_sum)
        self._strategies = check_fit(build_strategies(config.strategy), "prime-rl", entropy=False)
        self._window = window
        self._before: deque[TokenBatch] = deque()
        self._calls = count()

    def loss(self, inputs: Any) -> tuple[Tensor, dict[str, float]]:
        """Return the sum over the sequence's tokens, with gradient, and the metrics of the strategies."""
        tokens = token_batch(
            inputs.loss_mask[None],
            inputs.trainer_logprobs[None],
            inputs.inference_logprobs[None],
            inputs.advantages[None],
            bounds=self._objective.bounds,
            key=int(hash_u64(next(self._calls))) >> 1,
        )
        if not len(tokens):
            return inputs.trainer_logprobs.sum() * 0, {}
        here = detached(tokens)
        together = concatenated([here, *self._before])
        plan = make_loss_plan(together, self._objective, self._strategies)
        own = plan.select(torch.arange(len(tokens), device=plan.scale.device))
        if inputs.loss_weights is not None:
            weights = inputs.loss_weights[inputs.loss_mask]
            own = replace(own, scale=own.scale * weights)
        self._remember(here)
        current = replace(own.tokens, logprobs=tokens.logprobs)
        loss = planned_loss(current, own, self._objective, self._strategies)
        return loss, metrics_of(plan, self._strategies)

    def _remember(self, tokens: TokenBatch) -> None:
        self._before.append(tokens)
        while sum(map(len, self._before)) > self._window:
            self._before.popleft()


@cache
def _recent(overrides: tuple[str, ...], window: int) -> RecentTokens:
    return RecentTokens(overrides, window)


def _sum(tokens: TokenBatch) -> Tensor:
    """Aggregate by the plain sum."""
    return torch.ones_like(tokens.old_logprobs)
