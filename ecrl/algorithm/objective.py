"""What a paper calls its algorithm: estimator, surrogate, bounds, aggregation and filters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from ecrl.algorithm.advantages import GROUP_ESTIMATORS, grpo
from ecrl.algorithm.losses import ppo_clip, token_mean
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
        max_resample: further rounds of fresh problems drawn to replace dropped groups
            (DAPO's dynamic sampling, https://arxiv.org/abs/2503.14476); 0 draws none.
    """

    drop_zero_variance: bool = True
    max_resample: int = 0

    def __post_init__(self) -> None:
        if self.max_resample < 0:
            raise ValueError(f"objective.filters.max_resample must not be negative, got {self.max_resample}.")


@dataclass(frozen=True)
class Objective:
    """An algorithm, as one short YAML in ``configs/objective/``.

        >>> from ecrl import Objective
        >>> Objective().estimator.__name__, Objective().bounds
        ('grpo', Bounds(low=0.2, high=0.2))

    Attributes:
        estimator: rewards ``[B]`` and group ids ``[B]`` to advantages ``[B]``; see
            ``ecrl.algorithm.advantages``.
        surrogate: tokens to loss ``[N]``; see ``ecrl.algorithm.losses``.
        aggregation: tokens of the optimizer minibatch to their weights ``[N]`` in the sum.
        bounds: of the importance ratio.
        filters: which groups train.
    """

    estimator: Callable[[Tensor, Tensor], Tensor] = grpo
    surrogate: Callable[[TokenBatch], Tensor] = ppo_clip
    aggregation: Callable[[TokenBatch], Tensor] = token_mean
    bounds: Bounds = field(default_factory=Bounds)
    filters: Filters = field(default_factory=Filters)

    def __post_init__(self) -> None:
        for name in ("estimator", "surrogate", "aggregation"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"objective.{name} must be a function, got {getattr(self, name)!r}; "
                    "write {_target_: package.module.function, _partial_: true}."
                )
        for name, arguments in (("estimator", 2), ("surrogate", 1), ("aggregation", 1)):
            try:
                inspect.signature(getattr(self, name)).bind(*[None] * arguments)
            except TypeError as error:
                raise ValueError(f"objective.{name}: {error}; set objective.{name}.NAME=VALUE.") from None
        for name, kind in (("bounds", Bounds), ("filters", Filters)):
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise ValueError(
                    f"objective.{name} must be an ecrl.algorithm.objective.{kind.__name__}, got {part!r}."
                )
        # Bound by `_partial_`, so the function itself would only see them after the first rollout.
        for name, knob, least in (("surrogate", "dual_clip", 1), ("aggregation", "length", 0)):
            value = getattr(getattr(self, name), "keywords", {}).get(knob)
            if value is not None and not value > least:
                raise ValueError(f"objective.{name}.{knob} must exceed {least}, got {value}.")

    @property
    def needs_groups(self) -> bool:
        """Whether the estimator compares completions of the same problem."""
        function: Any = self.estimator.func if isinstance(self.estimator, partial) else self.estimator
        return function in GROUP_ESTIMATORS


def has_ratio(node: Mapping[str, Any] | None) -> bool:
    """Whether the surrogate of a configured objective has the importance ratio π/π_old."""
    surrogate = (node or {}).get("surrogate") or {}
    return bool(surrogate.get("_target_") != "ecrl.algorithm.losses.reinforce")
