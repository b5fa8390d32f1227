"""Reads rows from JSONL, JSON, CSV, TSV and Parquet files, each with the number of its line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ecrl.errors import UsageError

Row = Mapping[str, Any]
#: A row and its number: the line on which it begins (from 1), or its index in a file without lines (from 0).
Numbered = tuple[int, Row]

_SPACE = re.compile(r"[ \t\n\r]*")


def read_file(file: Path) -> tuple[list[Numbered], bool]:
    """Read the rows of a file.

    Returns:
        The rows with their numbers, and whether these are line numbers.

    Raises:
        UsageError: the file is of an unknown kind, cannot be read or is malformed; names the place.
    """
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise UsageError(f"{file}: unknown kind of file {file.suffix!r}; known: {', '.join(SUFFIXES)}.")
    try:
        return list(reader(file)), reader is not _parquet
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from None


def import_extra(module: str, what: str) -> Any:
    """Import a module of the extra ``data``.

    Args:
        module: dotted path.
        what: what needs the module, for the error.

    Raises:
        UsageError: it is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise UsageError(f"{what} need {module.split('.')[0]}: pip install 'ecrl[data]'.") from None


def _text(file: Path) -> str:
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        raise UsageError(f"{file}:{line}:{column}: not UTF-8 (byte 0x{data[error.start]:02x}).") from None


def _jsonl(file: Path) -> Iterator[Numbered]:
    # Not `splitlines`: strings may hold characters that Unicode counts as the end of a line.
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if line.strip():
            with _json_errors(file, number, first=number):
                row = json.loads(line.strip())
            yield number, _object(row, f"{file}:{number}")


def _json(file: Path) -> Iterator[Numbered]:
    """Read a list of objects, one by one, because `json.load` does not tell the line of each."""
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
    """Turn an error of the JSON parser into a line that names the file and the line.

    Args:
        file: the file that is read.
        line: the line on which the value begins.
        first: the line of the file on which the parsed text begins.

    Raises:
        UsageError: the parser failed.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{file}:{error.lineno + first - 1}:{error.colno}: not valid JSON ({error.msg})."
        ) from None
    except RecursionError:
        raise UsageError(f"{file}:{line}: unreadable row (nested too deep).") from None
    except ValueError as error:  # an integer with too many digits
        raise UsageError(f"{file}:{line}: unreadable row ({error}).") from None


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
            # A row may span several lines: `line` is its first one, `line_num` its last one.
            if cells and header is None:
                header = _header(cells, f"{file}:{line}")
            elif cells and header is not None:
                if len(cells) != len(header):
                    raise UsageError(f"{file}:{line}: {len(cells)} columns instead of {len(header)}.")
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(f"{file}:{line}: not valid CSV ({error}).") from None


def _header(cells: list[str], where: str) -> list[str]:
    twice = [name for name, count in Counter(cells).items() if count > 1]
    if twice:
        raise UsageError(f"{where}: the header has the column {twice[0]!r} more than once.")
    return cells


def _parquet(file: Path) -> Iterator[Numbered]:
    import pyarrow.parquet as parquet  # takes some tenths of a second

    try:
        yield from enumerate(parquet.read_table(file).to_pylist())
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise UsageError(f"{file}: not a Parquet file ({' '.join(str(error).split())}).") from None


_READERS: dict[str, Callable[[Path], Iterator[Numbered]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
#: Suffixes of the files that can be read.
SUFFIXES = tuple(_READERS)
