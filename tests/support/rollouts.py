"""What two runs wrote of their rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecrl.runs.rollouts import FOLDER, read_rollouts, saved_rollouts


def parts(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of a run, by the part that they are in."""
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in (run_dir / FOLDER / "train", *sorted((run_dir / FOLDER / "val").glob("*"))):
        of = None if folder.name == "train" else folder.name
        for iteration in saved_rollouts(run_dir, of):
            found[f"{folder.name}/{iteration}"] = read_rollouts(run_dir, iteration, of)
    return found


def assert_same_rollouts(one: Path, other: Path) -> None:
    """The same responses in the same order; numbers equal but for rounding."""
    left, right = parts(one), parts(other)
    assert left.keys() == right.keys() and left
    for name in left:
        for a, b in zip(left[name], right[name], strict=True):
            for column, value in a.items():
                rounded = column in ("logprob", "entropy", "advantage", "covariance") and value is not None
                want = pytest.approx(b[column], rel=1e-2, abs=1e-4) if rounded else b[column]
                assert value == want, (name, column)
