"""A mixture: every problem comes from one of several environments, which is drawn by weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecrl.envs.base import Split
from ecrl.envs.composite.base import CompositeEnv, make_member
from ecrl.errors import UsageError

_DEFAULT = ("ecrl/Arithmetic-v0", "ecrl/Countdown-v0")
_KEYS = ("id", "name", "weight", "kwargs")


class MixtureEnv(CompositeEnv):
    """Draw every problem from one of several environments, by weight.

    The reward is the member's own. Metrics carry the member's name: an episode has ``<name>/reward`` and the
    member's own metrics as ``<name>/<metric>``. Every episode has ``<name>/share`` of all members, which is
    1 or 0, so that its mean is the member's share of the problems.

    Args:
        envs: for each member its Gymnasium id, or ``{id: …, name: …, weight: 1.0, kwargs: {}}``. The default
            name comes from the id, e.g. ``countdown``.
        split: ``train`` or ``val``.

    Raises:
        UsageError: there are no members, a key is unknown, two members have the same name, a weight is not
            positive, or a member cannot be made.
    """

    def __init__(self, *, envs: Sequence[str | Mapping[str, Any]] = _DEFAULT, split: Split = "train") -> None:
        if not isinstance(envs, list | tuple) or not envs:
            raise UsageError(f"envs must be a list of members, as [{{id: ID, weight: 1}}, …]; got {envs!r}.")
        members = [_read(member) for member in envs]
        self.names = [str(member["name"]) for member in members]
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise UsageError(f"envs has two members named {twice[0]!r}; give each a `name` of its own.")
        super().__init__([make_member(m["id"], split, m["kwargs"]) for m in members], split=split)
        self._bounds = np.cumsum([float(member["weight"]) for member in members])

    def choose(self, rng: np.random.Generator, options: Mapping[str, Any]) -> int:
        """Draw a member by weight."""
        return int(np.searchsorted(self._bounds, rng.random() * self._bounds[-1], side="right"))

    def mark(self, metrics: Mapping[str, float], reward: float) -> dict[str, float]:
        """Put the member's name before its metrics."""
        here = self.names[self._index]
        shares = {f"{name}/share": float(name == here) for name in self.names}
        return {**shares, f"{here}/reward": reward, **{f"{here}/{k}": float(v) for k, v in metrics.items()}}


def _read(member: Any) -> dict[str, Any]:
    """Fill in the defaults of a member."""
    given = {"id": member} if isinstance(member, str) else member
    if not isinstance(given, Mapping) or "id" not in given or set(given) - set(_KEYS):
        raise UsageError(f"A member of envs takes {', '.join(_KEYS)}, and id is required; got {member!r}.")
    name = str(given["id"]).rpartition("/")[2].rpartition("-v")[0].lower()
    full = {"name": name, "weight": 1.0, "kwargs": {}, **given}
    weight = full["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise UsageError(f"weight must be a positive number; got {weight!r} for {given['id']!r}.")
    return full
