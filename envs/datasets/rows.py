"""Loads the rows of a file or a data set, and tells where each row stands."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from ecrl.envs.datasets.row_files import SUFFIXES, Row, import_extra, read_file
from ecrl.errors import UsageError

_MOST_FILES = 10_000
#: Other suffixes that a folder with a data set may hold.
_DATA_SET_SUFFIXES = {".arrow", ".txt", ".zip", ".gz", ".zst", ".xz", ".bz2", ".tar", ".py"}


@dataclass(frozen=True)
class Rows:
    """The rows of one file or data set.

    Attributes:
        path: the file or data set.
        rows: the rows.
        numbers: the number of each row in the file.
        lines: whether the numbers are lines, counted from 1; otherwise they are row indices, counted from 0.
        problems: what environments have found in the rows, by a key of theirs.
    """

    path: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    lines: bool
    problems: dict[Hashable, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def place(self, index: int) -> str:
        """Say where a row stands: ``file:line``, or ``file: row n`` if the file has no lines."""
        return f"{self.path}{':' if self.lines else ': row '}{self.numbers[index]}"

    def select(self, where: Mapping[str, Any]) -> Rows:
        """Return the rows whose columns have these values."""
        kept = [i for i, row in enumerate(self.rows) if all(row.get(k) == v for k, v in where.items())]
        return Rows(self.path, [self.rows[i] for i in kept], [self.numbers[i] for i in kept], self.lines)


def load_rows(
    path: str,
    *,
    where: Mapping[str, Any] | None = None,
    subset: str | None = None,
    part: str | None = None,
    argument: str = "path",
) -> Rows:
    """Load rows. All environments of a process share them, so do not change them.

    Args:
        path: a ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` or ``.parquet`` file, a folder with a local copy of
            a data set, or a name on the Hugging Face hub.
        where: take only rows whose columns have these values; None takes all.
        subset: configuration of a data set; a file has none, and ignores it.
        part: split of a data set, e.g. ``train``; None takes the only one, or ``train``. A file ignores it.
        argument: name of the argument that ``path`` is, for messages.

    Raises:
        UsageError: the file does not exist, is empty or is malformed; names file and line.
    """
    for name, value in (where or {}).items():
        if not isinstance(value, (str, int, float, type(None))):
            raise UsageError(f"where takes a plain value for each column; got {value!r:.80} for {name!r}.")
    file = Path(path).expanduser()
    if _looks_like_path(path) and not file.exists():
        raise UsageError(f"{argument}={path!r} does not exist.")
    modified = file.stat().st_mtime_ns if file.is_file() else 0
    wanted = tuple(sorted((where or {}).items()))
    return _load(str(file) if file.exists() else path, wanted, subset, part, modified)


@lru_cache(maxsize=32)
def _load(
    path: str, where: tuple[tuple[str, Any], ...], subset: str | None, part: str | None, modified: int
) -> Rows:
    """Load rows; ``modified``, the file's time of modification in nanoseconds, renews the cache."""
    rows = _read(path, subset, part)
    if where:
        rows = rows.select(dict(where))
    if not len(rows):
        raise UsageError(f"{path} holds no rows{f' where {dict(where)}' if where else ''}.")
    return rows


def _read(path: str, subset: str | None, part: str | None) -> Rows:
    file = Path(path)
    if file.is_file():
        numbered, lines = read_file(file)
        return Rows(path, [row for _, row in numbered], [number for number, _ in numbered], lines)
    if file.is_dir():
        _check_folder(file)
    rows = _data_set(path, subset, part)
    return Rows(path, rows, range(len(rows)), lines=False)


def _looks_like_path(path: str) -> bool:
    """Whether a text is a path rather than a name on the hub."""
    return os.path.isabs(path) or path.startswith((".", "~")) or Path(path).suffix.lower() in SUFFIXES


def _check_folder(folder: Path) -> None:
    """Refuse a folder without a data set, before `datasets` reads all files below it, perhaps for hours."""
    names: Iterable[str] = (name for _, _, found in os.walk(folder) for name in found)
    files = list(islice(names, _MOST_FILES + 1))
    if len(files) > _MOST_FILES:
        raise UsageError(f"path={str(folder)!r} is a folder with more than {_MOST_FILES} files; name one.")
    if not any(Path(name).suffix.lower() in {*SUFFIXES, *_DATA_SET_SUFFIXES} for name in files):
        raise UsageError(f"path={str(folder)!r} is a folder without data files ({', '.join(SUFFIXES)}).")


def _data_set(path: str, subset: str | None, part: str | None) -> Sequence[Row]:
    datasets = import_extra("datasets", "data sets")
    try:
        found = datasets.load_dataset(path, subset)
    except Exception as error:  # the hub, the network and the files raise errors of many kinds
        raise UsageError(
            f"path={path!r} cannot be loaded as a data set: {' '.join(str(error).split())}"
        ) from None
    if part is None:
        part = "train" if "train" in found else next(iter(found))
    if part not in found:
        raise UsageError(f"{path} has no part {part!r}; found {', '.join(found)}.")
    rows: Sequence[Row] = found[part]  # reads from disk, row by row
    return rows
