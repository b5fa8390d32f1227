"""A run's ``metrics.jsonl``, one JSON object per iteration, and the ``summary.json`` at its end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ecrl.errors import UsageError


class _NotFiniteError(ValueError):
    """A row holds NaN or an infinity; the message is that constant."""


def is_wall_time(name: str) -> bool:
    """Whether a metric measures wall time or a server; all others are the same, bit for bit, on resume."""
    return name.startswith(("time/", "throughput/", "judge/"))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a ``metrics.jsonl``; an incomplete last line is left out.

    Raises:
        UsageError: the file is missing or cannot be read, or a line before the last is malformed.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: this run has no metrics.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        wrong = "not a row of metrics (a JSON object with `iteration`)"
        try:
            row = json.loads(line, parse_constant=_refuse)
        except _NotFiniteError as error:
            row, wrong = None, f"holds {error}, which is no finite number"
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and _is_iteration(row.get("iteration")):
            rows.append(row)
        elif number < len(lines) or line.endswith(b"\n"):
            raise UsageError(f"{path}, line {number}: {wrong}.")
    return rows


def read_summary(run_dir: Path) -> dict[str, Any] | None:
    """Read a run's ``summary.json``.

    Returns:
        The summary; None if there is none, because the run is going on or was cut off.

    Raises:
        UsageError: it cannot be read, or is no summary of a run; names the file.
    """
    path = run_dir / "summary.json"
    try:
        summary = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        summary = None
    if not (
        isinstance(summary, dict)
        and _is_iteration(summary.get("iterations"))
        and isinstance(summary.get("versions"), dict)
        and "stopped_by" in summary
    ):
        raise UsageError(
            f"{path} is no summary of a run (a JSON object with iterations, versions and stopped_by)."
        )
    return summary


def runs_in(folder: Path) -> list[Path]:
    """Return the run directories in a folder, sorted by name, arm_2 before arm_10."""
    return sorted((file.parent for file in folder.glob("*/metrics.jsonl")), key=_natural)


def legible(path: Path | str) -> str:
    """Return a path as text that can be printed: a byte that is not UTF-8 becomes a question mark."""
    return str(path).encode(errors="replace").decode()


def _natural(path: Path) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", path.name)]


def _is_iteration(value: Any) -> bool:
    """Whether a value is a whole number that an int64 array can hold."""
    return isinstance(value, int) and abs(value) < 2**63


def drop_after(path: Path, iteration: int) -> None:
    """Drop the rows after an iteration, where a run resumes; the file is replaced whole."""
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
    """Refuse NaN and infinities, which Python reads although they are not JSON."""
    raise _NotFiniteError(constant)


def as_line(row: dict[str, Any]) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, allow_nan=False) + "\n"
