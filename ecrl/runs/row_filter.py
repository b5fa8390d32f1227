"""Conditions on rows of rollouts, ``reward=0,truncated=true``, and their order."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ecrl.errors import UsageError, unknown_name
from ecrl.runs.rollouts import COLUMNS
from ecrl.runs.same_answers import SAME

#: What a condition may compare, by Arrow's type; ``metrics.NAME`` is a number.
KINDS = {name: kind for name, (kind, _) in COLUMNS.items() if not kind.startswith("list")} | {SAME: "int32"}
METRIC = "metrics."
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(rf"([\w.@-]+?)\s*({'|'.join(_OPERATORS)})\s*(.*)", re.DOTALL)
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Condition:
    """One comparison; ``value`` None stands for what a row does not have."""

    column: str
    sign: str
    value: Any

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a row satisfies it; what is missing equals ``null`` alone."""
        got = value_of(row, self.column)
        if self.sign in ("=", "!="):
            return _OPERATORS[self.sign](got, self.value)
        return got is not None and _OPERATORS[self.sign](got, self.value)


def conditions(text: str) -> list[Condition]:
    """Read ``COLUMN=VALUE,COLUMN<VALUE,…``.

    Raises:
        UsageError: says which condition is wrong and why.
    """
    return [_condition(part.strip()) for part in text.split(",")]


def sorted_rows(rows: Sequence[Mapping[str, Any]], by: str) -> list[Mapping[str, Any]]:
    """Sort rows by a column, falling where a minus stands before it; those without a value come last.

    Raises:
        UsageError: there is no such column.
    """
    column = checked_column(by.removeprefix("-"))
    there = [row for row in rows if value_of(row, column) is not None]
    there.sort(key=lambda row: value_of(row, column), reverse=by.startswith("-"))
    return there + [row for row in rows if value_of(row, column) is None]


def check_metrics(columns: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a metric that no row has.

    Raises:
        UsageError: names those that there are.
    """
    known = {metric["name"] for row in rows for metric in row["metrics"]}
    for column in columns:
        if column.startswith(METRIC) and (name := column.removeprefix(METRIC)) not in known:
            if not known:
                raise UsageError(f"{column}: this environment reports no metrics.")
            raise unknown_name("metric of the environment", name, known)


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """Return a row's value in a column, or of a metric of its environment; None if it has none."""
    if not column.startswith(METRIC):
        return row[column]
    named = {metric["name"]: metric["value"] for metric in row["metrics"]}
    return named.get(column.removeprefix(METRIC))


def checked_column(column: str) -> str:
    """Return the name of a column.

    Raises:
        UsageError: there is no such column.
    """
    _kind(column)
    return column


def _kind(column: str) -> str:
    if column.startswith(METRIC):
        return "float64"
    if column not in KINDS:
        raise unknown_name("column", column, [*KINDS, f"{METRIC}NAME"])
    return KINDS[column]


def _condition(text: str) -> Condition:
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise UsageError(f"{text!r} is no condition; write COLUMN=VALUE, with one of = != < <= > >=.")
    column, sign, given = parts.groups()
    kind = _kind(column)
    if kind in ("bool", "string") and sign not in ("=", "!="):
        raise UsageError(f"{text!r}: {column} is {_noun(kind)}; compare it with = or !=.")
    return Condition(column, sign, _value(text, column, kind, sign, given))


def _value(text: str, column: str, kind: str, sign: str, given: str) -> Any:
    if given == "null" and sign in ("=", "!="):
        return None
    if kind == "string":
        return given
    try:
        return _WORDS[given] if kind == "bool" else float(given)
    except (KeyError, ValueError):
        raise UsageError(f"{text!r}: {column} is {_noun(kind)}; got {given!r}.") from None


def _noun(kind: str) -> str:
    return {"bool": "true or false", "string": "text"}.get(kind, "a number")
