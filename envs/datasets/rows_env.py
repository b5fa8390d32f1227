"""Problems that lie in a file or a data set, a row each."""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import gymnasium as gym
import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Split
from ecrl.envs.datasets.row_files import Row, Rows, read_rows
from ecrl.errors import UsageError

T = TypeVar("T")
BadRows = Literal["refuse", "skip"]

_MAX_DRAWS = 1000


def load_rows(
    path: str,
    *,
    where: Mapping[str, Any] | None = None,
    subset: str | None = None,
    part: str | None = None,
) -> Rows:
    """Load problems, once in a process however many environments use them. Do not change them.

    Args:
        path: a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, a folder with a local copy of
            a data set, or a name on the Hugging Face hub.
        where: rows to take, by the values of columns; None takes all.
        subset: configuration of a data set.
        part: split of a data set, e.g. ``train``; None takes the only one, or ``train``.

    Raises:
        UsageError: there is no such file, it is empty or malformed; names file and line.
    """
    for name, value in (where or {}).items():
        if not isinstance(value, (str, int, float, type(None))):
            raise UsageError(f"where takes a plain value for each column; got {value!r:.80} for {name!r}.")
    file = Path(path).expanduser()
    stamp = file.stat().st_mtime_ns if file.is_file() else 0
    wanted = tuple(sorted((where or {}).items()))
    return _load(str(file) if file.exists() else path, wanted, subset, part, stamp)


@lru_cache(maxsize=8)
def _load(
    path: str, where: tuple[tuple[str, Any], ...], subset: str | None, part: str | None, stamp: int
) -> Rows:
    rows = read_rows(path, subset, part)
    if where:
        rows = rows.chosen(dict(where))
    if not len(rows):
        raise UsageError(f"{path} holds no rows{f' where {dict(where)}' if where else ''}.")
    return rows


def value_at(row: Row, column: str) -> Any:
    """Return the value of a column, which may be a path into nested values: ``prompt.0.content``.

    Raises:
        ValueError: there is none; lists those that there are.
    """
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        try:
            value = value[int(key) if isinstance(value, (list, tuple)) else key]
        except (LookupError, TypeError, ValueError):
            raise ValueError(f"no column {column!r}; found {', '.join(map(str, row))}") from None
    return value


def check_filled(row: Row, column: str) -> None:
    """Refuse a cell with nothing in it.

    Raises:
        ValueError: there is no such column, or it holds null, NaN, blanks or an empty container.
    """
    value = value_at(row, column)
    blank = not value.strip() if isinstance(value, str) else isinstance(value, (list, dict)) and not value
    if blank or value is None or value != value:
        raise ValueError(f"column {column!r} is empty: {json.dumps(value)}")


@contextmanager
def in_column(*columns: str) -> Iterator[None]:
    """Name the column in what is said of its cell.

    Raises:
        ValueError: the same, with the columns before it.
    """
    names = f"column {', '.join(map(repr, columns))}"
    try:
        yield
    except RecursionError:
        raise ValueError(f"{names}: nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{names}: {error}") from None


def read_cell(row: Row, column: str, read: Callable[[Any], T]) -> T:
    """Make something of a cell.

    Raises:
        ValueError: there is no such column, or ``read`` refuses what it holds; names the column.
    """
    value = value_at(row, column)
    with in_column(column):
        return read(value)


def prompt_text(value: Any) -> str:
    """The text of a prompt, which may be a text or a list of chat messages.

    Raises:
        ValueError: it is neither.
    """
    messages = [{"content": value}] if isinstance(value, str) else value
    if isinstance(messages, (list, tuple)) and all(isinstance(m, dict) for m in messages):
        contents = [message.get("content") for message in messages]
        if all(isinstance(content, str) for content in contents) and any(map(str.strip, contents)):
            return "\n\n".join(contents)
    raise ValueError(f"a text or chat messages were wanted; found {value!r:.80}")


class RowsEnv(ReasoningEnv):
    """Draws its problems from rows. ``reset(options={"index": i})`` picks row i, whatever the split.

    A subclass says in `problem_of` how a row becomes a problem, and sets what that needs *before* it calls
    this constructor, which tries it on every row. One row in ten is for validation, by the hash of
    ``Problem.key``; with ``val_path`` or ``val_part`` training has all rows, and validation all of that.

    Args:
        path: see `load_rows`.
        columns: that no row may lack or leave empty; ``prompt.0.content`` reaches into nested values.
        val_path: rows of the validation split.
        where: see `load_rows`.
        subset: see `load_rows`.
        part: see `load_rows`.
        val_part: part of a data set that is the validation split; ``val_path`` may then be left out.
        bad_rows: ``skip`` leaves out rows that are no problems, with a warning.
        split: ``train`` or ``val``.

    Raises:
        UsageError: unreadable rows, or some that are no problems: names the first by file and line, with
            column and what was found, and counts the others.
    """

    #: Of more rows than these, as many are looked at beforehand, evenly spread.
    looked_at: ClassVar[int] = 50_000

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
        bad_rows: BadRows = "refuse",
        split: Split = "train",
    ) -> None:
        # All that matters for whether a row is bad: of many environments alike, the first looks at the rows.
        settings = type(self), repr(vars(self)), tuple(columns), bad_rows
        super().__init__(split=split)
        if not path:
            raise UsageError(f"{type(self).__name__} needs path=FILE (or a data set): env.kwargs.path=FILE.")
        if bad_rows not in get_args(BadRows):
            raise UsageError(f"bad_rows must be one of {', '.join(get_args(BadRows))}; got {bad_rows!r}.")
        self._columns = tuple(columns)
        self._skips = bad_rows == "skip"
        self._apart = bool(val_path or val_part)
        sources = {"train": (path, part), "val": (val_path or path, val_part or part)}
        # Training looks at the rows of validation, too: the first validation is late for bad news.
        for source in (sources["train"], sources["val"]) if split == "train" else (sources["val"],):
            rows = load_rows(source[0], where=where, subset=subset, part=source[1])
            if settings not in rows.seen:
                self._look_at(rows)
                rows.seen.add(settings)
        self._source = sources[split], dict(where or {}), subset
        self.path = self._source[0][0]
        self.rows = self._load()

    @abstractmethod
    def problem_of(self, row: Row) -> Problem:
        """Make the problem of a row; `value_at` reads its columns.

        Raises:
            ValueError: the row cannot be one; says why.
        """

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a row; of those that are problems with ``bad_rows=skip``."""
        for _ in range(_MAX_DRAWS if self._skips else 0):
            with suppress(UsageError):
                return self.problem_at(int(rng.integers(len(self.rows))))
        return self.problem_at(int(rng.integers(len(self.rows))))

    def problem_at(self, index: int) -> Problem:
        """Make the problem of row ``index``.

        Raises:
            UsageError: the row cannot be one; names its place and what was found.
        """
        try:
            return self._read(self.rows[index])
        except ValueError as error:
            raise UsageError(f"{self.rows.place(index)}: {error}.") from None

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
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.rows):
            raise UsageError(f"{self.path} has rows 0 to {len(self.rows) - 1}; got index={index!r}.")
        gym.Env.reset(self, seed=seed)
        self._problem = self.problem_at(index)
        return self._problem.prompt, {"problem": self._problem}

    def _draw(self) -> Problem:
        return self.sample_problem(self.np_random) if self._apart else super()._draw()

    def _read(self, row: Row) -> Problem:
        for column in self._columns:
            check_filled(row, column)
        return self.problem_of(row)

    def _look_at(self, rows: Rows) -> None:
        """Try all rows (or many, evenly spread) before anything is drawn from them."""
        first, bad = "", 0
        indices = range(0, len(rows), -(-len(rows) // self.looked_at))
        for index in indices:
            try:
                self._read(rows[index])
            except ValueError as error:
                first, bad = first or f"{rows.place(index)}: {error}", bad + 1
        if not bad:
            return
        others = f" ({bad - 1} more of {len(indices)} rows are bad, too)" if bad > 1 else ""
        if not self._skips or bad == len(indices):
            raise UsageError(f"{first}{others}.")
        warnings.warn(f"{first}{others}; skipped.", stacklevel=2)

    def _load(self) -> Rows:
        (path, part), where, subset = self._source
        return load_rows(path, where=where, subset=subset, part=part)

    def __getstate__(self) -> dict[str, Any]:
        # Rows are loaded again rather than copied.
        return {name: value for name, value in self.__dict__.items() if name != "rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.rows = self._load()
