"""A curriculum: one environment at several levels of difficulty, which follow the success rate.

The level is not a state of the environment; it comes with `reset(options={"level": n})`. So all copies of a
problem have the same level, the level changes only between iterations, and a checkpoint holds nothing but the
`LevelSchedule`, which `CurriculumCallback` keeps during a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ecrl.envs.arguments import check_types
from ecrl.envs.base import Split
from ecrl.envs.composite.base import CompositeEnv, make_member
from ecrl.errors import UsageError

_STEPS: Sequence[Mapping[str, Any]] = ({"steps": 1}, {"steps": 2}, {"steps": 3})


class LevelSchedule:
    """The current level, and the rule that changes it.

        level + 1 once the mean success of the last `window` iterations at this level is ≥ up
        level − 1 once it is ≤ down

    Args:
        last: the highest level; the lowest is 0.
        level: the level at the beginning.
        up: the success rate, in (0, 1], at which the level rises.
        down: the success rate at which the level falls; negative for never.
        window: the number of iterations at one level over which the success rate is averaged.

    Raises:
        ValueError: ``up`` is not in (0, 1], ``down`` is not below it, or ``window`` is no positive integer.
    """

    def __init__(self, last: int, level: int, up: float, down: float, window: int) -> None:
        if not 0 < up <= 1:
            raise ValueError(f"up must be a success rate above 0, at most 1; got {up!r}.")
        if not down < up:
            raise ValueError(f"down must be below up={up}; got {down}.")
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window must be an integer of at least 1; got {window!r}.")
        self.last = last
        self.level = level
        self.up = up
        self.down = down
        self.window = window
        self._rates: list[float] = []

    def observe(self, success: float) -> None:
        """Add the success rate of an iteration at the current level, and change the level if it is time."""
        self._rates = [*self._rates, success][-self.window :]
        if len(self._rates) < self.window:
            return
        rate = float(np.mean(self._rates))
        level = min(self.level + 1, self.last) if rate >= self.up else self.level
        level = max(self.level - 1, 0) if rate <= self.down else level
        if level != self.level:
            self.level, self._rates = level, []

    def state_dict(self) -> dict[str, Any]:
        """Return the level and the success rates seen at it."""
        return {"level": self.level, "rates": list(self._rates)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.level = state_dict["level"]
        self._rates = list(state_dict["rates"])


class CurriculumEnv(CompositeEnv):
    """One environment at levels of difficulty that follow the success rate.

    In a run the level of the training problems rises as the policy succeeds (see `LevelSchedule`). Outside a
    run, ``reset(options={"level": n})`` draws from level n; without it, training problems have level
    ``start``. Validation problems have the last level, because that is the aim of the training. The reward is
    the environment's own; ``level`` is added to its metrics.

    Args:
        env: Gymnasium id of the environment.
        levels: the environment's arguments at each level, from the easiest to the hardest.
        kwargs: arguments that all levels share.
        start: the level at the beginning.
        up: the level rises at this success rate or above; success is a reward of at least 1.
        down: the level falls at this success rate or below; negative for never.
        window: the number of iterations at one level over which the success rate is averaged.
        split: ``train`` or ``val``.

    Raises:
        UsageError: there are no levels, ``start`` is not one of them, or `LevelSchedule` or the environment
            refuses its arguments.
    """

    training_callback: ClassVar[str | None] = "ecrl.callbacks.curriculum.CurriculumCallback"

    def __init__(
        self,
        *,
        env: str = "ecrl/Arithmetic-v0",
        levels: Sequence[Mapping[str, Any]] = _STEPS,
        kwargs: Mapping[str, Any] | None = None,
        start: int = 0,
        up: float = 0.7,
        down: float = -1.0,
        window: int = 3,
        split: Split = "train",
    ) -> None:
        check_types(CurriculumEnv.__init__, locals())
        if not levels:
            raise UsageError(
                f"levels must be one or more sets of arguments, as [{{steps: 1}}]; got {levels!r}."
            )
        if not 0 <= start < len(levels):
            raise UsageError(f"start must be one of the {len(levels)} levels, from 0 on; got {start!r}.")
        members = [make_member(env, split, {**(kwargs or {}), **level}) for level in levels]
        super().__init__(members, split=split)
        try:
            self.level_schedule = LevelSchedule(len(levels) - 1, start, up, down, window)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self.start = start if split == "train" else len(levels) - 1

    def choose(self, rng: np.random.Generator, options: Mapping[str, Any]) -> int:
        """Return the level that ``options`` asks for.

        Raises:
            UsageError: the level does not exist.
        """
        level = options.get("level", self.start)
        if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < len(self.members):
            raise UsageError(f"level must be from 0 to {len(self.members) - 1}; got {level!r}.")
        return level

    def mark(self, metrics: Mapping[str, float], reward: float) -> dict[str, float]:
        """Add the level to the metrics."""
        return {**metrics, "level": float(self._index)}
