"""Writes a report's numbers as CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ecrl.report.data import Comparison
from ecrl.runs.metrics_file import is_wall_time


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a header and rows; a byte of a name that is no UTF-8 becomes a question mark."""
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_numbers(comparison: Comparison, folder: Path) -> None:
    """Write ``curves.csv`` and ``final.csv`` in long form: one number a line, with its interval."""
    curves, numbers = [], []
    for arm in comparison.arms:
        for name in (n for n in comparison.names if not is_wall_time(n)):
            curve = comparison.curve(arm, name)
            if curve is None:
                continue
            b = curve.band
            for t, mean, low, high, n in zip(curve.iteration, b.mean, b.low, b.high, b.n, strict=True):
                curves.append([arm.name, name, t, mean, low, high, n])
            for seed, value in sorted(comparison.finals(arm, name).items()):
                numbers.append([arm.name, name, "final", seed, value, "", ""])
            for kind, of in (
                ("final", comparison.final(arm, name)),
                ("difference", comparison.gain(arm, name)),
            ):
                if of and not (kind == "difference" and arm is comparison.arms[0]):
                    numbers.append([arm.name, name, kind, "all", of.mean, of.low, of.high])
    for name, header, rows in (
        ("curves.csv", ["arm", "metric", "iteration", "mean", "low", "high", "seeds"], curves),
        ("final.csv", ["arm", "metric", "kind", "seed", "value", "low", "high"], numbers),
    ):
        write_csv(folder / name, header, [[_exact(cell) for cell in row] for row in rows])


def _exact(cell: Any) -> Any:
    return cell if not isinstance(cell, float) else "" if math.isnan(cell) else f"{cell:.7g}"
