"""The environments that rollouts play in: a pool for training, and one for each validation set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from ecrl.envs.base import Split
from ecrl.rollout.problem_order import reset_arguments, size

#: The pool of the training environments.
TRAIN = "train"


def split_of(pool: str) -> Split:
    """Return the split that a pool of environments draws from: all but training's are for validation."""
    return "train" if pool == TRAIN else "val"


class EnvPools:
    """Makes environments as they are needed, and keeps them.

    Args:
        make_env: makes an environment of a pool: ``train``, or the name of a validation set.
        seed: of the problems.

    Attributes:
        options: options of every ``reset`` in a pool; they may change only between iterations.
    """

    def __init__(self, make_env: Callable[[str], gym.Env[str, str]], seed: int) -> None:
        self._make_env = make_env
        self._seed = seed
        self._envs: dict[str, list[gym.Env[str, str]]] = defaultdict(list)
        self.options: dict[str, dict[str, Any]] = defaultdict(dict)

    def get(self, pool: str, slot: int = 0) -> gym.Env[str, str]:
        """Return an environment of a pool."""
        envs = self._envs[pool]
        while len(envs) <= slot:
            envs.append(self._make_env(pool))
        return envs[slot]

    def size(self, pool: str) -> int | None:
        """Number of problems of a pool; None if its environment has no end."""
        return size(self.get(pool))

    def reset_arguments(self, pool: str, number: int) -> dict[str, Any]:
        """Return the arguments with which ``reset`` poses a problem of a pool."""
        return reset_arguments(self.get(pool), split_of(pool), self._seed, number, self.options[pool])

    def close_other_sets(self, pool: str) -> None:
        """Close the environments of other validation sets, so that memory does not grow with the sets."""
        for other in self._envs.keys() - {TRAIN, pool} if pool != TRAIN else ():
            for env in self._envs.pop(other):
                env.close()
