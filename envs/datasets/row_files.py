"""Reads rows out of files and data sets, and remembers where each one stands."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from ecrl.errors import UsageError

Row = Mapping[str, Any]
#: A row and its number: the line in which it begins, or its place in a file without lines.
Numbered = tuple[int, Row]

_SPACE = re.compile(r"[ \t\n\r]*")
_MOST_FILES = 10_000


@dataclass(frozen=True)
class Rows:
    """Rows of one place.

    Attributes:
        path: of the file or data set.
        rows: themselves.
        numbers: of the rows, in the file.
        lines: whether these are lines, from 1 on; otherwise rows, from 0 on.
        seen: who has looked at all of them already.
    """

    path: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    lines: bool
    seen: set[Hashable] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def place(self, index: int) -> str:
        """Say where a row stands: ``file:line``, or ``file: row n`` where there are no lines."""
        return f"{self.path}{':' if self.lines else ': row '}{self.numbers[index]}"

    def chosen(self, where: Mapping[str, Any]) -> Rows:
        """The rows whose columns have these values."""
        kept = [i for i, row in enumerate(self.rows) if all(row.get(k) == v for k, v in where.items())]
        return Rows(self.path, [self.rows[i] for i in kept], [self.numbers[i] for i in kept], self.lines)


def read_rows(path: str, subset: str | None, part: str | None) -> Rows:
    """Read a file, a folder with a copy of a data set, or a data set of the hub; see `load_rows`.

    Raises:
        UsageError: it cannot be read.
    """
    file = Path(path)
    if file.is_file():
        return _file(file)
    looks_like_path = file.is_absolute() or path.startswith((".", "~")) or file.suffix.lower() in _READERS
    if looks_like_path and not file.is_dir():
        raise UsageError(f"path={path!r} does not exist.")
    if file.is_dir():
        _check_folder(file)
    rows = _dataset(path, subset, part)
    return Rows(path, rows, range(len(rows)), lines=False)


def _file(file: Path) -> Rows:
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise UsageError(f"{file}: unknown kind of file {file.suffix!r}; known: {', '.join(_READERS)}.")
    try:
        numbered = list(reader(file))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    lines = reader is not _parquet
    return Rows(str(file), [row for _, row in numbered], [number for number, _ in numbered], lines)


def _text(file: Path) -> str:
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        raise UsageError(f"{file}:{line}:{column}: no UTF-8 (byte 0x{data[error.start]:02x}).") from None


def _jsonl(file: Path) -> Iterator[Numbered]:
    # Not `splitlines`: texts may hold what Unicode takes for the end of a line.
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            with _json_errors(file, number, first=number):
                row = json.loads(line.strip())
            yield number, _object(row, f"{file}:{number}")


def _json(file: Path) -> Iterator[Numbered]:
    """A list of objects, read one by one for the sake of their lines."""
    text, decode = _text(file), json.JSONDecoder().raw_decode
    position = _after_space(text, 0)
    if not text.startswith("[", position):
        with _json_errors(file, 1):
            found = type(json.loads(text)).__name__
        raise UsageError(f"{file}: a list of objects was wanted, got a {found}.")
    position, seen, line = _after_space(text, position + 1), 0, 1
    mark = "]" if text.startswith("]", position) else ","
    while mark == ",":
        line, seen = line + text.count("\n", seen, position), position
        with _json_errors(file, line):
            row, position = decode(text, position)
        yield line, _object(row, f"{file}:{line}")
        position = _after_space(text, position)
        mark = text[position : position + 1]
        position = _after_space(text, position + 1) if mark == "," else position
    with _json_errors(file, line):
        if mark != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
        if (end := _after_space(text, position + 1)) < len(text):
            raise json.JSONDecodeError("Extra data", text, end)


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


@contextmanager
def _json_errors(file: Path, line: int, first: int = 1) -> Iterator[None]:
    """Name the place of what is no JSON.

    Args:
        file: that is read.
        line: in which the value begins.
        first: line of the file in which the text begins.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}:{error.lineno + first - 1}:{error.colno}: no JSON ({error.msg}).") from None
    except RecursionError:
        raise UsageError(f"{file}:{line}: no row (nested too deep).") from None
    except ValueError as error:  # an integer of too many digits
        raise UsageError(f"{file}:{line}: no row ({error}).") from None


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UsageError(f"{where}: an object was wanted, got a {type(row).__name__}.")
    return row


def _csv(file: Path) -> Iterator[Numbered]:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(_text(file), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            # A row may take several lines: `line` is its first, `line_num` its last.
            if cells and header is None:
                header = _header(cells, f"{file}:{line}")
            elif cells and header is not None:
                if len(cells) != len(header):
                    raise UsageError(f"{file}:{line}: {len(cells)} columns instead of {len(header)}.")
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{file}:{line}: no CSV ({error}).") from None


def _header(cells: list[str], where: str) -> list[str]:
    twice = [name for name, count in Counter(cells).items() if count > 1]
    if twice:
        raise UsageError(f"{where}: the header has the column {twice[0]!r} more than once.")
    return cells


def _parquet(file: Path) -> Iterator[Numbered]:
    parquet = _extra("pyarrow.parquet", "Parquet files")
    try:
        yield from enumerate(parquet.read_table(file).to_pylist())
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UsageError(f"{file}: no Parquet ({' '.join(str(error).split())}).") from None


_READERS: dict[str, Callable[[Path], Iterator[Numbered]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
#: What else a folder with a data set may hold.
_ALSO = {".arrow", ".txt", ".zip", ".gz", ".zst", ".xz", ".bz2", ".tar", ".py"}


def _check_folder(folder: Path) -> None:
    """Refuse what is no data set before `datasets` looks at every file below it, which may take hours."""
    names: Iterable[str] = (name for _, _, found in os.walk(folder) for name in found)
    files = list(islice(names, _MOST_FILES + 1))
    if len(files) > _MOST_FILES:
        raise UsageError(f"path={str(folder)!r} is a folder with more than {_MOST_FILES} files; name one.")
    if not any(Path(name).suffix.lower() in {*_READERS, *_ALSO} for name in files):
        raise UsageError(f"path={str(folder)!r} is a folder without data files ({', '.join(_READERS)}).")


def _dataset(path: str, subset: str | None, part: str | None) -> Sequence[Row]:
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
    rows: Sequence[Row] = found[part]  # reads from disk, row by row
    return rows


def _extra(module: str, what: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(f"{what} need {module.split('.')[0]}: pip install 'ecrl[data]'.") from None
