"""Which rows make problems, and which split each problem belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ecrl.envs.base import Problem, Split, in_validation
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows import Rows
from ecrl.errors import UsageError
from ecrl.hashing import stable_hash


@dataclass(frozen=True)
class RowProblems:
    """The rows that make problems.

    Attributes:
        indices: ``[n]``, the rows.
        keys: ``[n]``, the hash of each problem's key.
    """

    indices: NDArray[np.int64]
    keys: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def of(self) -> dict[Split, RowProblems]:
        """The problems of each split, as the hashes of their keys decide; environments share them."""
        val = in_validation(self.keys)
        splits: dict[Split, NDArray[np.bool_]] = {"train": ~val, "val": val}
        return {split: RowProblems(self.indices[mine], self.keys[mine]) for split, mine in splits.items()}


def read_problems(
    rows: Rows, make: Callable[[Row], Problem], key_of: Callable[[Row], str], tried: int, skip: bool
) -> RowProblems:
    """Read the key of every row's problem, before anything is drawn from the rows.

    Args:
        rows: the rows.
        make: makes a row's problem; raises ValueError if the row makes none.
        key_of: reads only the problem's key; raises ValueError as well.
        tried: of how many rows the problem is made at most; if there are more, these are evenly spread.
        skip: leave bad rows out, with a warning.

    Raises:
        UsageError: a row makes no problem; names the first by file and line, and counts the others.
    """
    step = -(-len(rows) // tried)
    indices, keys = [], []
    first, bad = "", 0
    for index in range(len(rows)):
        row = rows[index]
        try:
            keys.append(stable_hash(key_of(row) if index % step else make(row).key))
            indices.append(index)
        except ValueError as error:
            first, bad = first or f"{rows.place(index)}: {error}", bad + 1
    if bad:
        others = f" ({bad - 1} more of {len(rows)} rows are bad, too)" if bad > 1 else ""
        if not skip or not indices:
            raise UsageError(f"{first}{others}.")
        warnings.warn(f"{first}{others}; skipped.", stacklevel=2)
    return RowProblems(np.asarray(indices, np.int64), np.asarray(keys, np.uint64))
