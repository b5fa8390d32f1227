"""Reads the cells of a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ecrl.envs.datasets.row_files import Row

T = TypeVar("T")


def value_at(row: Row, column: str) -> Any:
    """Return the value of a column, which may be a path into nested values: ``prompt.0.content``.

    Raises:
        ValueError: there is no such column; lists the row's columns.
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
    """Check that a cell is not empty.

    Raises:
        ValueError: there is no such column, or it holds null, NaN, blanks or an empty container.
    """
    value = value_at(row, column)
    blank = not value.strip() if isinstance(value, str) else isinstance(value, (list, dict)) and not value
    if blank or value is None or value != value:
        raise ValueError(f"column {column!r} is empty: {json.dumps(value)}")


@contextmanager
def in_column(*columns: str) -> Iterator[None]:
    """Put the names of the columns before an error about their cells.

    Raises:
        ValueError: a ValueError was raised within, or the cells are nested too deeply.
    """
    names = f"column {', '.join(map(repr, columns))}"
    try:
        yield
    except RecursionError:
        raise ValueError(f"{names}: nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{names}: {error}") from None


def read_cell(row: Row, column: str, read: Callable[[Any], T]) -> T:
    """Return what ``read`` makes of a cell.

    Raises:
        ValueError: there is no such column, or ``read`` refuses its value; names the column.
    """
    value = value_at(row, column)
    with in_column(column):
        return read(value)


def prompt_text(value: Any) -> str:
    """Return the text of a prompt, which may be a string or a list of chat messages.

    Raises:
        ValueError: it is neither.
    """
    messages = [{"content": value}] if isinstance(value, str) else value
    if isinstance(messages, (list, tuple)) and all(isinstance(m, dict) for m in messages):
        contents = [message.get("content") for message in messages]
        if all(isinstance(content, str) for content in contents) and any(map(str.strip, contents)):
            return "\n\n".join(contents)
    raise ValueError(f"a text or chat messages were wanted; found {value!r:.80}")
