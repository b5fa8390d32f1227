"""What a paper calls its algorithm: estimator, surrogate, bounds, aggregation and filters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ecrl.algorithm.advantages import AT_K_ESTIMATORS, GROUP_ESTIMATORS, grpo
from ecrl.algorithm.episodes import Episodes
from ecrl.algorithm.losses import SurrogateLoss, ppo_clip, token_mean
from ecrl.algorithm.process_reward import ImplicitProcessReward
from ecrl.algorithm.rollout_batch import RolloutBatch, SequenceTokens
from ecrl.algorithm.shaping import NEEDS_REFERENCE
from ecrl.algorithm.token_batch import TokenBatch


@dataclass(frozen=True)
class Bounds:
    """Clip range of the importance ratio: ``[1 − low, 1 + high]``."""

    low: float = 0.2
    high: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.low <= 1 and self.high >= 0):
            raise ValueError(
                "objective.bounds: the ratio lies in [1 − low, 1 + high], so low must be in [0, 1] and high "
                f"not negative; got low={self.low}, high={self.high}."
            )


@dataclass(frozen=True)
class Filters:
    """Which groups train.

    Attributes:
        drop_zero_variance: leave out groups whose rewards are all the same.
        min_accuracy: leave out groups whose mean reward is below it; None for no bound.
        max_accuracy: leave out groups whose mean reward is above it; None for no bound.
        max_resample: further rounds of fresh problems drawn to replace dropped groups
            (DAPO's dynamic sampling, https://arxiv.org/abs/2503.14476); 0 draws none.
        mask_truncated: give responses that were cut off no advantage (DAPO's overlong filtering). They still
            count in the baseline of their group and in the mean over tokens.
    """

    drop_zero_variance: bool = True
    min_accuracy: float | None = None
    max_accuracy: float | None = None
    max_resample: int = 0
    mask_truncated: bool = False

    def __post_init__(self) -> None:
        low, high = self.min_accuracy, self.max_accuracy
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"objective.filters: min_accuracy must not exceed max_accuracy; got {low} and {high}."
            )
        if self.max_resample < 0:
            raise ValueError(f"objective.filters.max_resample must not be negative, got {self.max_resample}.")


@dataclass(frozen=True)
class Objective:
    """An algorithm, as one short YAML in ``configs/objective/``.

    Examples:
        >>> from ecrl import Objective
        >>> Objective().estimator.__name__, Objective().bounds
        ('grpo', Bounds(low=0.2, high=0.2))

    Attributes:
        estimator: episodes to advantages, ``[B]`` or ``[N]``; see ``ecrl.algorithm.advantages``.
        surrogate: tokens to a ``SurrogateLoss``; see ``ecrl.algorithm.losses``.
        aggregation: tokens of the optimizer minibatch to their weights ``[N]`` in the sum.
        bounds: of the importance ratio.
        filters: which groups train.
        shaping: by name, functions of episodes whose results ``[B]`` are added to the rewards in this order;
            see ``ecrl.algorithm.shaping``.
        auxiliary: by name, what models beside the policy learn; see ``ecrl.algorithm.process_reward``.

    Raises:
        ValueError: a part is not what it should be, or does not take its arguments.
    """

    estimator: Callable[[Episodes], Tensor] = grpo
    surrogate: Callable[[TokenBatch], SurrogateLoss] = ppo_clip
    aggregation: Callable[[TokenBatch], Tensor] = token_mean
    bounds: Bounds = field(default_factory=Bounds)
    filters: Filters = field(default_factory=Filters)
    shaping: Mapping[str, Callable[[Episodes], Tensor]] = field(default_factory=dict)
    auxiliary: Mapping[str, ImplicitProcessReward] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (("bounds", Bounds), ("filters", Filters)):
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise ValueError(
                    f"objective.{name} must be an ecrl.algorithm.objective.{kind.__name__}, got {part!r}."
                )
        for name, task in self.auxiliary.items():
            if not isinstance(task, ImplicitProcessReward):
                raise ValueError(
                    f"objective.auxiliary.{name} must be an "
                    f"ecrl.algorithm.process_reward.ImplicitProcessReward, got {task!r}."
                )
        # Arguments are bound by `_partial_`: without a trial they would be refused in the first update.
        try_out("estimator", self.estimator, PROBE.episodes())
        try_out("surrogate", self.surrogate, PROBE.tokens(0, 0.8, 1.2))
        try_out("aggregation", self.aggregation, PROBE.tokens(0, 0.8, 1.2))
        for name, shape in self.shaping.items():
            try_out(f"shaping.{name}", shape, PROBE.episodes())

    def advantages(self, episodes: Episodes) -> Tensor:
        """Shape the rewards and estimate the advantages of all tokens: ``[N]``."""
        for shape in self.shaping.values():
            added = shape(episodes)
            at_end = torch.zeros_like(episodes.token_rewards).index_add(0, episodes.last_tokens, added)
            episodes = replace(
                episodes, rewards=episodes.rewards + added, token_rewards=episodes.token_rewards + at_end
            )
        advantages = self.estimator(episodes).to(episodes.rewards.dtype)
        if len(advantages) == len(episodes):
            advantages = advantages[episodes.sequence_ids]
        if self.filters.mask_truncated:
            advantages = advantages.masked_fill(episodes.truncated[episodes.sequence_ids], 0)
        return advantages

    @property
    def least_group(self) -> int:
        """How many completions of a problem the estimator needs, for any advantage but 0."""
        if _function(self.estimator) in AT_K_ESTIMATORS:
            return int(inspect.signature(self.estimator).parameters["k"].default)
        return 2 if _function(self.estimator) in GROUP_ESTIMATORS else 1

    @property
    def needs_reference(self) -> bool:
        """Whether shaping or an auxiliary model reads log-probs of the initial policy."""
        return bool(self.auxiliary) or any(
            _function(shape) in NEEDS_REFERENCE for shape in self.shaping.values()
        )


def _function(part: Any) -> Any:
    return part.func if isinstance(part, partial) else part


def try_out(name: str, part: Any, argument: Any) -> None:
    """Call a part of an objective once, on two episodes of three tokens in all.

    Raises:
        ValueError: it is not a function, does not take its arguments, refuses their values, or returns
            something else than it should.
    """
    if not callable(part):
        raise ValueError(
            f"objective.{name} must be a function, got {part!r}; "
            "write {_target_: package.module.function, _partial_: true}."
        )
    try:
        inspect.signature(part).bind(None)
    except TypeError as error:
        raise ValueError(f"objective.{name}: {error}; set objective.{name}.NAME=VALUE.") from None
    try:
        result = part(argument)
    except KeyError:  # a column that only a run has
        return
    except (TypeError, ValueError) as error:
        raise ValueError(f"objective.{name}: {error}") from None
    wanted, shapes = ("a SurrogateLoss", [(3,)]) if name == "surrogate" else ("a tensor", [(3,), (2,)])
    tensor = result.loss if isinstance(result, SurrogateLoss) else result
    fits = isinstance(result, SurrogateLoss) == (name == "surrogate") and isinstance(tensor, Tensor)
    if not fits or tuple(tensor.shape) not in shapes:
        raise ValueError(
            f"objective.{name} must return {wanted} with a number for each token (or episode, where it takes "
            f"episodes); for 3 tokens of 2 episodes it returned {result!r}."
        )


def _probe() -> RolloutBatch:
    """Two episodes of two tokens and one, for trying functions out."""
    zeros, lengths = torch.zeros(3), torch.tensor([2, 1])
    return RolloutBatch(
        sequences=[SequenceTokens([1], [2, 3], [True, True]), SequenceTokens([1], [2], [True])],
        lengths=lengths,
        group_ids=torch.zeros(2, dtype=torch.long),
        uid=torch.arange(2),
        rewards=torch.tensor([1.0, 0.0]),
        truncated=torch.zeros(2, dtype=torch.bool),
        turns=torch.zeros(3, dtype=torch.long),
        token_rewards=torch.tensor([0.0, 1.0, 0.0]),
        old_logprobs=zeros - 1,
        engine_logprobs=zeros - 1,
        old_entropy=zeros + 1,
        advantages=torch.tensor([1.0, 1.0, -1.0]),
    )


PROBE = _probe()


#: Surrogates without the importance ratio, and those with it that read no bounds of it.
_WITHOUT_RATIO = ("ecrl.algorithm.losses.reinforce",)
_WITHOUT_BOUNDS = (*_WITHOUT_RATIO, "ecrl.algorithm.surrogates.sapo", "ecrl.algorithm.surrogates.dppo")


def surrogate_name(node: Mapping[str, Any] | None) -> str:
    """Dotted name of a configured objective's surrogate; empty if none is configured."""
    surrogate = (node or {}).get("surrogate") or {}
    return str(surrogate.get("_target_", ""))


def has_ratio(node: Mapping[str, Any] | None) -> bool:
    """Whether the surrogate of a configured objective has the importance ratio π/π_old."""
    return surrogate_name(node) not in _WITHOUT_RATIO


def has_bounds(node: Mapping[str, Any] | None) -> bool:
    """Whether the surrogate of a configured objective reads bounds of the ratio."""
    return surrogate_name(node) not in _WITHOUT_BOUNDS
