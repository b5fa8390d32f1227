"""The metrics of a run as columns over iterations, read from our runs and from other frameworks' logs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecrl.analysis import Floats
from ecrl.errors import UsageError, unknown_name, usage_errors
from ecrl.runs.metrics_file import read_metrics

#: Names of the column of iterations, in order of preference; without one, rows are numbered from 1.
ITERATION = ("iteration", "step", "_step", "Step", "global_step", "training/global_step")
_MISSING = ("", "nan", "none", "null", "na", "n/a")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """Metrics of one run.

    Attributes:
        source: file or folder that they were read from.
        iteration: ``[T]``, ascending. A validation after update t has iteration t; one before the first
            update has 0.
        columns: the values ``[T]`` by name; NaN where not measured.
        faults: why a column cannot be used, by name; e.g. it has two values for one iteration because two
            runs are mixed in the source.
    """

    source: Path
    iteration: NDArray[np.int64]
    columns: Mapping[str, Floats]
    faults: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Floats:
        """Return a column ``[T]``.

        Raises:
            ValueError: there is no such column, it has a fault, or it holds no finite number.
        """
        if name in self.faults:
            raise ValueError(f"{self.source}: column {name!r} {self.faults[name]}")
        if name not in self.columns:
            raise ValueError(f"{self.source}: {unknown_name('column', name, self.columns)}")
        if not np.isfinite(self.columns[name]).any():
            raise ValueError(f"{self.source}: column {name!r} holds no number.")
        return self.columns[name]


def read_series(source: Path, *, columns: Mapping[str, str] | None = None) -> Series:
    """Read the metrics of a run.

    Args:
        source: a run directory, a CSV file, a JSONL file, or a folder with TensorBoard events.
        columns: columns of the source to rename, by their new names, e.g.
            ``{"policy/entropy": "actor/entropy", "iteration": "trained"}``. The others keep their names.

    Raises:
        UsageError: the source does not exist or cannot be read, or a column is missing.
    """
    if os.path.exists(source / "metrics.jsonl") or os.path.exists(source / "config.yaml"):
        rows: Sequence[Row] = read_metrics(source / "metrics.jsonl")
    elif os.path.isdir(source):
        rows = _read_events(source)
    elif not os.path.exists(source):
        raise UsageError(f"{source} does not exist.")
    elif source.suffix in (".jsonl", ".csv"):
        rows = _read_jsonl(source) if source.suffix == ".jsonl" else _read_csv(source)
    else:
        raise UsageError(f"{source} is no run directory, .csv, .jsonl or folder with TensorBoard events.")
    with usage_errors():
        return from_rows(rows, source, columns)


def from_rows(rows: Sequence[Row], source: Path, columns: Mapping[str, str] | None = None) -> Series:
    """Build a series from rows; rows of the same iteration are merged.

    Args:
        rows: values by name; numbers, or None or NaN where not measured. A column that holds anything
            else becomes a fault.
        source: file or folder, for messages.
        columns: columns to rename; see ``read_series``.

    Raises:
        ValueError: there are no rows, a column is missing, or an iteration is not a whole number.
    """
    if not rows:
        raise ValueError(f"{source} holds no metrics.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for theirs in (columns or {}).values():
        if theirs not in names:
            raise ValueError(f"{source}: {unknown_name('column', theirs, names)}")
    ours = {theirs: name for name, theirs in (columns or {}).items()}
    clock = (columns or {}).get("iteration") or next((n for n in ITERATION if n in names), None)
    merged: dict[int, dict[str, Any]] = {}
    faults: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        iteration = number if clock is None else _whole(row.get(clock), f"{source}, row {number}: {clock!r}")
        known = merged.setdefault(iteration, {})
        for name, value in row.items():
            if name == clock or not _measured(value):
                continue
            mine = ours.get(name, name)
            before = known.setdefault(mine, value)
            if not is_number(value):
                faults.setdefault(mine, f"holds {str(value)[:40]!r} (row {number}), which is no number.")
            elif before != value:
                what = f"has {before} and then {value} (row {number}) at {clock} {iteration}"
                faults.setdefault(mine, f"{what}; are two runs mixed in it?")
    order = sorted(merged)
    wanted = {ours.get(name, name) for name in names if name != clock}
    table = {
        name: np.array([merged[i].get(name, np.nan) for i in order], float)
        for name in sorted(wanted - faults.keys())
    }
    return Series(source, np.array(order, np.int64), table, faults)


def _measured(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def is_number(value: Any) -> bool:
    """Whether a value is a number that fits in a float."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= sys.float_info.max)


def _whole(value: Any, what: str) -> int:
    if not is_number(value) or not float(value).is_integer() or abs(value) >= 2**63:
        raise ValueError(f"{what} is {repr(value)[:40]}, not a whole number below 2^63.")
    return int(value)


def _read_jsonl(path: Path) -> Sequence[Row]:
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number}: not a JSON object.")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> Sequence[Row]:
    text = _text(path)
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    rows = []
    for row in _lines(reader, path):
        if None in row or None in row.values():
            wanted = len(reader.fieldnames or [])
            raise UsageError(f"{path}, line {reader.line_num}: not the {wanted} cells of its header.")
        rows.append({name: _cell(text) for name, text in row.items()})
    return rows


def _lines(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        names = reader.fieldnames or []
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"{path}: two columns are called {twice!r}.")
        yield from reader
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from None


def _cell(text: str) -> float | str | None:
    if text.strip().lower() in _MISSING:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None


def _read_events(folder: Path) -> Sequence[Row]:
    """Read the scalars of the only folder with events in or below ``folder``; a step is an iteration."""
    # Imported here because it is slow and only these folders need it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    folders = sorted({path.parent for path in folder.rglob("*tfevents*")})
    if len(folders) != 1:
        some = ", ".join(str(f.relative_to(folder)) for f in folders[:3])
        found = (
            f"has {len(folders)} folders with TensorBoard events ({some}, …): name one"
            if folders
            else "holds neither metrics.jsonl nor TensorBoard events"
        )
        raise UsageError(f"{folder} {found}.")
    board = EventAccumulator(str(folders[0]), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    events = [(e.step, tag, e.value) for tag in board.Tags()["scalars"] for e in board.Scalars(tag)]
    for tag in board.Tags()["tensors"]:  # TensorFlow 2 writes scalars as tensors
        if board.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            events += [(e.step, tag, float(make_ndarray(e.tensor_proto))) for e in board.Tensors(tag)]
    # A resumed run writes some steps twice; the later event replaces the earlier one. Events that start
    # again at the first step are of another run: both values are kept, and from_rows reports a fault.
    first = min((step for step, _, _ in events), default=0)
    again = [event for event in events if event[0] == first]
    later = {(step, tag): value for step, tag, value in events if step > first}
    return [
        {"iteration": step, tag: value}
        for step, tag, value in [*again, *((*key, value) for key, value in later.items())]
    ]
