"""Problems that lie in a file or a data set, a row each."""

from __future__ import annotations

import csv
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Split
from ecrl.errors import UsageError

Row = Mapping[str, Any]
Rows = Sequence[Row]


def load_rows(
    path: str,
    columns: Sequence[str],
    *,
    where: Mapping[str, Any] | None = None,
    subset: str | None = None,
    part: str | None = None,
) -> Rows:
    """Load problems, once in a process however many environments use them. Do not change them.

    Args:
        path: a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, a folder with a local copy of
            a data set, or a name on the Hugging Face hub.
        columns: that every row must have, and not empty; ``prompt.0.content`` reaches into nested values.
        where: rows to take, by the values of columns; None takes all.
        subset: configuration of a data set.
        part: split of a data set, e.g. ``train``; None takes the only one, or ``train``.

    Raises:
        UsageError: there is no such file, it is empty, or a row is malformed or lacks a column; names file,
            row and column, and lists what was found.
    """
    file = Path(path).expanduser()
    stamp = file.stat().st_mtime_ns if file.is_file() else 0
    wanted = tuple(sorted((where or {}).items()))
    return _load(str(file) if file.exists() else path, tuple(columns), wanted, subset, part, stamp)


@lru_cache(maxsize=8)
def _load(
    path: str,
    columns: tuple[str, ...],
    where: tuple[tuple[str, Any], ...],
    subset: str | None,
    part: str | None,
    stamp: int,
) -> Rows:
    rows = _read(path, subset, part)
    if where:
        rows = [row for row in rows if all(row.get(name) == value for name, value in where)]
    if not rows:
        raise UsageError(f"{path} holds no rows{f' where {dict(where)}' if where else ''}.")
    for number, row in enumerate(rows):
        for column in columns:
            try:
                value = value_at(row, column)
            except KeyError:
                found = ", ".join(map(str, row))
                raise UsageError(f"{path}: row {number} has no column {column!r}; found {found}.") from None
            if value is None or value != value or (isinstance(value, (str, list, dict)) and not value):
                raise UsageError(f"{path}: row {number} has nothing in column {column!r}.")
    return rows


def _read(path: str, subset: str | None, part: str | None) -> Rows:
    file = Path(path)
    if file.is_file():
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            raise UsageError(f"{path}: unknown kind of file {file.suffix!r}; known: {', '.join(_READERS)}.")
        try:
            return list(reader(file))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
    looks_like_path = file.is_absolute() or path.startswith((".", "~")) or file.suffix.lower() in _READERS
    if looks_like_path and not file.is_dir():
        raise UsageError(f"path={path!r} does not exist.")
    return _dataset(path, subset, part)


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    row = json.loads(line.strip())
                except json.JSONDecodeError as error:
                    raise UsageError(f"{file}:{number}:{error.colno}: no JSON ({error.msg}).") from None
                except RecursionError:
                    raise UsageError(f"{file}:{number}: no row (nested too deep).") from None
                yield _object(row, f"{file}:{number}")


def _json(file: Path) -> Iterator[Row]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}:{error.lineno}:{error.colno}: no JSON ({error.msg}).") from None
    if not isinstance(content, list):
        raise UsageError(f"{file}: a list of objects was wanted, got a {type(content).__name__}.")
    for number, row in enumerate(content):
        yield _object(row, f"{file}: row {number}")


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: an object was wanted, got a {type(row).__name__}.")
    return row


def _csv(file: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    got = len([v for k, v in row.items() if k is not None and v is not None])
                    got += len(row.get(None) or [])
                    wanted = len(reader.fieldnames or [])
                    raise UsageError(f"{file}:{reader.line_num}: {got} columns instead of {wanted}.")
                yield row
        except csv.Error as error:
            raise UsageError(f"{file}:{reader.line_num}: no CSV ({error}).") from None


def _parquet(file: Path) -> Iterator[Row]:
    parquet = _extra("pyarrow.parquet", "Parquet files")
    try:
        yield from parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UsageError(f"{file}: no Parquet ({' '.join(str(error).split())}).") from None


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _dataset(path: str, subset: str | None, part: str | None) -> Rows:
    datasets = _extra("datasets", "data sets")
    try:
        found = datasets.load_dataset(path, subset)
    except Exception as error:  # the hub, the network, the files: all in their own words
        raise UsageError(
            f"path={path!r} cannot be loaded as a data set: {' '.join(str(error).split())}"
        ) from None
    if part is None:
        part = "train" if "train" in found else next(iter(found))
    if part not in found:
        raise UsageError(f"{path} has no part {part!r}; found {', '.join(found)}.")
    rows: Rows = found[part]  # reads from disk, row by row
    return rows


def _extra(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(f"{what} need {module.split('.')[0]}: pip install 'ecrl[data]'.") from None


def value_at(row: Row, column: str) -> Any:
    """Return the value of a column, which may be a path into nested values: ``prompt.0.content``.

    Raises:
        KeyError: there is none.
    """
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        try:
            value = value[int(key) if isinstance(value, (list, tuple)) else key]
        except (LookupError, TypeError, ValueError):
            raise KeyError(column) from None
    return value


class RowsEnv(ReasoningEnv):
    """Draws its problems from rows. ``reset(options={"index": i})`` picks row i, whatever the split.

    A subclass says in `problem_of` how a row becomes a problem. One row in ten is for validation, by the hash
    of ``Problem.key``; with ``val_path`` or ``val_part`` training has all rows, and validation all of that.

    Args:
        path: see `load_rows`.
        columns: see `load_rows`.
        val_path: rows of the validation split.
        where: see `load_rows`.
        subset: see `load_rows`.
        part: see `load_rows`.
        val_part: part of a data set that is the validation split; ``val_path`` may then be left out.
        split: ``train`` or ``val``.

    Raises:
        UsageError: unreadable rows, an unknown column, an empty answer.
    """

    def __init__(
        self,
        path: str | None,
        columns: Sequence[str],
        *,
        val_path: str | None = None,
        where: Mapping[str, Any] | None = None,
        subset: str | None = None,
        part: str | None = None,
        val_part: str | None = None,
        split: Split = "train",
    ) -> None:
        super().__init__(split=split)
        if not path:
            raise UsageError(f"{type(self).__name__} needs path=FILE (or a data set): env.kwargs.path=FILE.")
        self._apart = bool(val_path or val_part)
        validates = self._apart and split == "val"
        self.path = (val_path or path) if validates else path
        self.subset, self.part = subset, (val_part or part) if validates else part
        self._columns = tuple(columns)
        self._where = dict(where or {})
        self.rows = self._load()

    @abstractmethod
    def problem_of(self, row: Row) -> Problem:
        """Make the problem of a row; `value_at` reads its columns.

        Raises:
            ValueError: the row cannot be one; says why.
        """

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a row."""
        return self.problem_at(int(rng.integers(len(self.rows))))

    def problem_at(self, index: int) -> Problem:
        """Make the problem of row ``index``.

        Raises:
            UsageError: the row cannot be one; names file and row.
        """
        try:
            return self.problem_of(self.rows[index])
        except ValueError as error:
            raise UsageError(f"{self.path}: row {index}: {error}") from None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a problem of this split, or take row ``options["index"]``.

        Raises:
            UsageError: there is no such row.
        """
        index = (options or {}).get("index")
        if index is None:
            return super().reset(seed=seed)
        if not isinstance(index, int) or not 0 <= index < len(self.rows):
            raise UsageError(f"{self.path} has rows 0 to {len(self.rows) - 1}; got index={index!r}.")
        gym.Env.reset(self, seed=seed)
        self._problem = self.problem_at(index)
        return self._problem.prompt, {"problem": self._problem}

    def _draw(self) -> Problem:
        return self.sample_problem(self.np_random) if self._apart else super()._draw()

    def _load(self) -> Rows:
        return load_rows(self.path, self._columns, where=self._where, subset=self.subset, part=self.part)

    def __getstate__(self) -> dict[str, Any]:
        # Rows are loaded again rather than copied.
        return {name: value for name, value in self.__dict__.items() if name != "rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.rows = self._load()
