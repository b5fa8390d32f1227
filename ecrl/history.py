"""The run's history on disk: ``metrics.jsonl``, one object an iteration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ecrl.errors import UsageError


class _NotFiniteError(ValueError):
    """A NaN or an infinity in a row; the message is the constant."""


def is_wall_time(name: str) -> bool:
    """Whether a metric measures the clock; all others are the same, bit for bit, in a resumed run."""
    return name.startswith(("time/", "throughput/"))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a ``metrics.jsonl``; a last line that was cut short is left out.

    Raises:
        UsageError: the file is missing, or a line before the last is malformed.
    """
    if not path.exists():
        raise UsageError(f"{path} is missing: there are no metrics of this run.")
    lines = path.read_bytes().splitlines(keepends=True)
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        wrong = "not a row of metrics (a JSON object with `iteration`)"
        try:
            row = json.loads(line, parse_constant=_refuse)
        except _NotFiniteError as error:
            row, wrong = None, f"holds {error}, no finite number"
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            rows.append(row)
        elif number < len(lines) or line.endswith(b"\n"):
            raise UsageError(f"{path}, line {number}: {wrong}.")
    return rows


def drop_after(path: Path, iteration: int) -> None:
    """Drop the rows behind an iteration, as a run resumes there; aside first, then moved into place."""
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row["iteration"] <= iteration]
    aside = path.with_name(path.name + ".partial")
    with aside.open("w") as file:
        file.writelines(as_line(row) for row in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def _refuse(constant: str) -> None:
    """Take NaN and infinities, which Python would read, for what they are: no JSON."""
    raise _NotFiniteError(constant)


def as_line(row: dict[str, Any]) -> str:
    """One row as a line of JSON."""
    return json.dumps(row, allow_nan=False) + "\n"
