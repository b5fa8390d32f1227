"""Random numbers by key."""

from __future__ import annotations

import numpy as np

from ecrl.hashing import hash_u64, stable_hash, uniform


def test_uniform_numbers_are_uniform_and_keyed() -> None:
    draws = uniform(5, np.arange(20000))
    assert draws.min() >= 0 and draws.max() < 1
    histogram, _ = np.histogram(draws, bins=20, range=(0, 1))
    # χ² with 19 degrees of freedom exceeds 43.8 once in a thousand.
    assert ((histogram - 1000) ** 2 / 1000).sum() < 43.8
    assert abs(np.corrcoef(draws, uniform(6, np.arange(20000)))[0, 1]) < 0.03
    assert hash_u64(1, 2) != hash_u64(2, 1)
    assert stable_hash("a") == stable_hash("a") != stable_hash("b")
