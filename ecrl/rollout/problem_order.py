"""The order in which a run poses an environment's problems: problem number ``n`` is always the same one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ecrl.envs.base import ReasoningEnv, Split, item_seed
from ecrl.envs.safe_calls import env_id, user_code
from ecrl.hashing import hash_u64

#: Validation problems of an environment without end where ``eval.problems=all``.
ENDLESS = 128
#: Number of each split's random stream.
STREAMS: dict[str, int] = {"train": 0, "val": 1}


def problem_seed(seed: int, split: Split, number: int) -> int:
    """Return the seed of a run's problem number ``number``; each split has its own stream."""
    return item_seed(int(hash_u64(seed, STREAMS[split])) >> 1, number)


def size(env: gym.Env[str, str]) -> int | None:
    """Number of problems of an environment's split; None if it has no end."""
    indices = _indices(env)
    return None if indices is None else len(indices)


def keys(env: gym.Env[str, str]) -> NDArray[np.uint64] | None:
    """Hashes of the problems of an environment's split; None if it has no end."""
    inner = env.unwrapped
    with user_code(f"{env_id(env)}.problem_keys"):
        return inner.problem_keys if isinstance(inner, ReasoningEnv) else None


def reset_arguments(
    env: gym.Env[str, str], split: Split, seed: int, number: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments with which ``reset`` poses problem number ``number``.

    A finite set is posed in epochs: each problem once, in an order that the seed and the epoch decide; then
    all again in another order. Validation takes the same problems with every seed.

    Args:
        env: the environment.
        split: its split.
        seed: seed of the run.
        number: counts the problems that the run poses, from 0.
        options: further options of ``reset``.
    """
    arguments: dict[str, Any] = {"seed": problem_seed(seed, split, number), "options": options or None}
    indices = _indices(env)
    if indices is not None:
        epoch, position = divmod(number, len(indices))
        order = _order(seed if split == "train" else 0, epoch, len(indices))
        arguments["options"] = {**options, "index": int(indices[order[position]])}
    return arguments


def ordered_keys(env: gym.Env[str, str], seed: int) -> NDArray[np.uint64] | None:
    """Hashes of the training problems in the order of a run's first epoch; None if they have no end."""
    found = keys(env)
    return None if found is None else found[_order(seed, 0, len(found))]


def _indices(env: gym.Env[str, str]) -> NDArray[np.int64] | None:
    inner = env.unwrapped
    with user_code(f"{env_id(env)}.problem_indices"):
        return inner.problem_indices if isinstance(inner, ReasoningEnv) else None


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)
