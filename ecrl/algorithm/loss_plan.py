"""Planning: what every token of an optimizer minibatch weighs, decided once and globally.

The strategies are folded in config order. The plan is then sliced, so no micro-batch and no rank
decides anything by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import AdvantageMixin, PenaltyMixin, RatioMixin, Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.hashing import hash_u64, stable_hash


@dataclass(frozen=True)
class LossPlan:
    """The planned part of the loss, ``L = Σ u·w·S + Σ u·c·p``.

    Attributes:
        tokens: the tokens with their final advantages and ratio bounds.
        scale: ``[N]`` u, from the aggregation.
        weights: ``[N]`` w, 0 where a token has no gradient.
        coefficients: c ``[N]`` of each penalty that touches any token, by strategy name.
        changed: ``[N]`` bool, the tokens that each strategy changed, by strategy name. Changed bounds count
            only for a strategy that changes nothing else.
        changed_fraction: their share of the whole minibatch's tokens, by strategy name; a slice keeps it.
    """

    tokens: TokenBatch
    scale: Tensor
    weights: Tensor
    coefficients: Mapping[str, Tensor]
    changed: Mapping[str, Tensor]
    changed_fraction: Mapping[str, float]

    def select(self, index: Tensor) -> LossPlan:
        """Slice the plan for the tokens at ``index``."""
        return LossPlan(
            tokens=self.tokens.select(index),
            scale=self.scale[index],
            weights=self.weights[index],
            coefficients={name: c[index] for name, c in self.coefficients.items()},
            changed={name: mask[index] for name, mask in self.changed.items()},
            changed_fraction=self.changed_fraction,
        )


def planning_tokens(
    batch: RolloutBatch,
    objective: Objective,
    strategies: Sequence[Strategy],
    seed: int,
    step: int,
    current: Callable[[], tuple[Tensor, Tensor]],
) -> TokenBatch:
    """View a minibatch as planning sees it: with the current log-probs where a strategy needs them.

    Args:
        batch: the optimizer minibatch, ``N`` tokens.
        objective: its bounds are those before any strategy.
        strategies: what they need decides.
        seed: of the run.
        step: number of optimizer steps before this one.
        current: scores the tokens by the current policy: log-probs ``[N]`` and entropies ``[N]``, nats.
    """
    bounds = objective.bounds
    tokens = batch.tokens(int(hash_u64(seed, step)) >> 1, 1 - bounds.low, 1 + bounds.high)
    # The trainer's own old log-probs are the current ones on the first minibatch after a rollout.
    stored = batch.fresh and batch.own_logprobs
    if stored or not any(s.needs_current for s in strategies):
        return tokens
    logprobs, entropy = current()
    return replace(tokens, logprobs=logprobs, entropy=entropy)


@torch.no_grad()
def make_loss_plan(tokens: TokenBatch, objective: Objective, strategies: Sequence[Strategy]) -> LossPlan:
    """Fold the strategies over all ``N`` tokens of the optimizer minibatch."""
    changed: dict[str, Tensor] = {}

    def note(strategy: Strategy, mask: Tensor) -> None:
        changed[strategy.name] = changed.get(strategy.name, torch.zeros_like(mask)) | mask

    for strategy in strategies:
        if isinstance(strategy, AdvantageMixin):
            advantages = strategy.advantages(_own_draws(tokens, strategy), tokens.advantages)
            note(strategy, advantages != tokens.advantages)
            tokens = replace(tokens, advantages=advantages)
    for strategy in strategies:
        if isinstance(strategy, RatioMixin):
            low, high = strategy.ratio_bounds(_own_draws(tokens, strategy), tokens.low, tokens.high)
            before, tokens = tokens, replace(tokens, low=low, high=high)
            if not isinstance(strategy, (AdvantageMixin, WeightMixin, PenaltyMixin)):
                note(strategy, (before.low != low) | (before.high != high))
    if any(isinstance(strategy, WeightMixin) for strategy in strategies):
        tokens = replace(tokens, clipped=objective.surrogate(tokens).clipped)
    weights = torch.ones_like(tokens.old_logprobs)
    for strategy in strategies:
        if isinstance(strategy, WeightMixin):
            unweighted, weights = weights, strategy.weights(_own_draws(tokens, strategy), weights)
            note(strategy, weights != unweighted)
    coefficients: dict[str, Tensor] = {}
    for strategy in strategies:
        if isinstance(strategy, PenaltyMixin):
            planned = strategy.penalty_coefficients(_own_draws(tokens, strategy))
            note(strategy, planned != 0)
            # A penalty that touches no token is left out, so that it costs nothing and changes no bit.
            if bool(planned.any()):
                coefficients[strategy.name] = planned
    shares = {name: float(mask.float().mean()) for name, mask in changed.items()}
    return LossPlan(tokens, objective.aggregation(tokens), weights, coefficients, changed, shares)


def _own_draws(tokens: TokenBatch, strategy: Strategy) -> TokenBatch:
    """Give the strategy a key of its own, else two of a stack would draw the same tokens."""
    return replace(tokens, key=int(hash_u64(tokens.key, stable_hash(strategy.name))) >> 1)


def planned_loss(
    tokens: TokenBatch, plan: LossPlan, objective: Objective, strategies: Sequence[Strategy]
) -> Tensor:
    """Sum the loss over the given tokens, which are those of ``plan``: a scalar with gradient.

    The sum over all micro-batches is the loss of the optimizer minibatch, however it was split.
    """
    return (plan.scale * token_losses(tokens, plan, objective, strategies)).sum()


def token_losses(
    tokens: TokenBatch, plan: LossPlan, objective: Objective, strategies: Sequence[Strategy]
) -> Tensor:
    """Compute each token's loss before the aggregation, ``w·S + Σ c·p``: ``[N]`` with gradient."""
    losses = plan.weights * objective.surrogate(tokens).loss
    for strategy in strategies:
        if isinstance(strategy, PenaltyMixin) and strategy.name in plan.coefficients:
            losses = losses + plan.coefficients[strategy.name] * strategy.penalty(tokens)
    return losses
