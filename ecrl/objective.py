"""What a paper calls its algorithm: estimator, surrogate, bounds, aggregation and filters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from ecrl.advantages import GROUP_ESTIMATORS, grpo
from ecrl.batch import TokenBatch
from ecrl.errors import UsageError
from ecrl.losses import ppo_clip, token_mean


@dataclass(frozen=True)
class Bounds:
    """Clip range of the importance ratio: ``[1 − low, 1 + high]``."""

    low: float = 0.2
    high: float = 0.2

    def __post_init__(self) -> None:
        if self.low < 0 or self.high < 0:
            raise UsageError(f"objective.bounds must not be negative, got low={self.low}, high={self.high}.")


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


@dataclass(frozen=True)
class Objective:
    """An algorithm, as one short YAML in ``configs/objective/``.

    Attributes:
        estimator: rewards ``[B]`` and group ids ``[B]`` to advantages ``[B]``; see ``ecrl.advantages``.
        surrogate: tokens to loss ``[N]``; see ``ecrl.losses``.
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
                raise UsageError(
                    f"objective.{name} must be a function, got {getattr(self, name)!r}; "
                    "write {_target_: package.module.function, _partial_: true}."
                )

    @property
    def needs_groups(self) -> bool:
        """Whether the estimator compares completions of the same problem."""
        function: Any = self.estimator.func if isinstance(self.estimator, partial) else self.estimator
        return function in GROUP_ESTIMATORS
