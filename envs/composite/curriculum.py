"""A curriculum: one environment at several levels, which follow the success rate.

The level is no state of an environment: it comes with `reset(options={"level": n})`. So all copies of a
problem have it in common, it changes between iterations only, and a checkpoint needs no more than the
`LevelSchedule`, which `ecrl.callbacks.curriculum` keeps in a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecrl.envs.arguments import check_types
from ecrl.envs.base import Split, check_integer
from ecrl.envs.composite.base import CompositeEnv, make_member
from ecrl.errors import UsageError

_STEPS: Sequence[Mapping[str, Any]] = ({"steps": 1}, {"steps": 2}, {"steps": 3})


class LevelSchedule:
    """The level, and the rule that moves it.

        level + 1 once the mean success of the last `window` iterations at this level is ≥ up
        level − 1 once it is ≤ down

    Args:
        last: the highest level.
        level: to begin with.
        up: success rate, from which on the level rises.
        down: success rate, up to which the level falls; below 0 for never.
        window: iterations at one level that the rate is a mean of.

    Raises:
        UsageError: ``up`` is no success rate, ``down`` is not below it, or the window is no positive integer.
    """

    def __init__(self, last: int, level: int, up: float, down: float, window: int) -> None:
        if not 0 < up <= 1:
            raise UsageError(f"up must be a success rate above 0, at most 1; got {up!r}.")
        if not down < up:
            raise UsageError(f"down must be below up={up}; got {down}.")
        check_integer("window", window, 1, 1_000_000)
        self.last = last
        self.level = level
        self.up = up
        self.down = down
        self.window = window
        self._rates: list[float] = []

    def observe(self, success: float) -> None:
        """Take the success rate of an iteration at the present level; move if it is time."""
        self._rates = [*self._rates, success][-self.window :]
        if len(self._rates) < self.window:
            return
        rate = float(np.mean(self._rates))
        level = min(self.level + 1, self.last) if rate >= self.up else self.level
        level = max(self.level - 1, 0) if rate <= self.down else level
        if level != self.level:
            self.level, self._rates = level, []

    def state_dict(self) -> dict[str, Any]:
        """Return the level, and the rates seen at it."""
        return {"level": self.level, "rates": list(self._rates)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.level = state_dict["level"]
        self._rates = list(state_dict["rates"])


class CurriculumEnv(CompositeEnv):
    """One environment at levels of difficulty that follow the success rate.

    In a run the level of the training problems rises as the policy succeeds (see `LevelSchedule`). By itself,
    ``reset(options={"level": n})`` draws from level n; without it, training problems are of level ``start``.
    Validation problems are of the last level, which is where training is to lead. The reward is the
    environment's; its metrics are joined by ``level``.

    Args:
        env: its Gymnasium id.
        levels: for each level, from the easiest on, the arguments that make it.
        kwargs: arguments that all levels have in common.
        start: the level to begin with.
        up: the level rises from this success rate on; success is a reward of at least 1.
        down: the level falls at this success rate and below; negative for never.
        window: iterations at one level that the rate is a mean of.
        split: ``train`` or ``val``.

    Raises:
        UsageError: no levels, a start outside them, arguments that the environment refuses.
    """

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
        self.level_schedule = LevelSchedule(len(levels) - 1, start, up, down, window)
        self.start = start if split == "train" else len(levels) - 1

    def choose(self, rng: np.random.Generator, options: Mapping[str, Any]) -> int:
        """Take the level that is asked for.

        Raises:
            UsageError: there is no such level.
        """
        level = options.get("level", self.start)
        if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < len(self.members):
            raise UsageError(f"level must be from 0 to {len(self.members) - 1}; got {level!r}.")
        return level

    def mark(self, metrics: Mapping[str, float], reward: float) -> dict[str, float]:
        """Add the level."""
        return {**metrics, "level": float(self._index)}
