"""Counter-based random numbers: each is a function of its key, whatever the call order or process.

Both the sampling of completions and the random choice of tokens use them, so neither depends on batch
size, micro-batches, ranks or order.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators".
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def hash_u64(*parts: ArrayLike) -> NDArray[np.uint64]:
    """Hash integers to 64 bits, elementwise with broadcasting.

    Args:
        *parts: integers or integer arrays; their order matters: ``hash_u64(1, 2) != hash_u64(2, 1)``.

    Returns:
        ``uint64`` array of the broadcast shape.
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _splitmix64(state ^ np.asarray(part).astype(np.uint64))
    return state


def uniform(*parts: ArrayLike) -> NDArray[np.float64]:
    """Hash integers to uniform numbers in [0, 1) with 53 random bits."""
    return (hash_u64(*parts) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def stable_hash(text: str) -> int:
    """Hash a text to 63 bits; the result is the same in every process and Python version."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
