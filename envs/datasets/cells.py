"""Reads the cells of a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def conversation(value: Any) -> list[dict[str, str]]:
    """Read a prompt as chat messages; a string is one message of the user's.

    Raises:
        ValueError: it is neither a string nor chat messages.
    """
    messages = [{"content": value}] if isinstance(value, str) else value
    if isinstance(messages, (list, tuple)) and all(isinstance(m, dict) for m in messages):
        read = [{"role": m.get("role", "user"), "content": m.get("content")} for m in messages]
        texts = all(isinstance(text, str) for message in read for text in message.values())
        if texts and any(message["content"].strip() for message in read):
            return read
    raise ValueError(f"a text or chat messages were wanted; found {value!r:.80}")


def prompt_text(value: Any) -> str:
    """Return the text of a prompt, which may be a string or a list of chat messages.

    Raises:
        ValueError: it is neither.
    """
    return joined(conversation(value))


def joined(messages: Sequence[Mapping[str, str]]) -> str:
    """Return the texts of chat messages as one, for policies without a chat template."""
    return "\n\n".join(message["content"] for message in messages)
