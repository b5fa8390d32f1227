"""Compares what a program printed or returned with what a test expects."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def same_text(got: str, wanted: str, tolerance: float = 1e-6) -> bool:
    """Compare two outputs line by line and word by word.

    White space at the ends and empty lines at the end do not count. If a word of ``wanted`` is a number with
    a decimal point, any number within ``tolerance``, relative or absolute, equals it.
    """
    lines = [[line.split() for line in text.rstrip().split("\n")] for text in (got, wanted)]
    if list(map(len, lines[0])) != list(map(len, lines[1])):
        return False
    pairs = (pair for a, b in zip(*lines, strict=True) for pair in zip(a, b, strict=True))
    return all(a == b or _near(a, b, tolerance) for a, b in pairs)


def _near(got: str, wanted: str, tolerance: float) -> bool:
    if "." not in wanted or not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    return math.isclose(float(got), float(wanted), rel_tol=tolerance, abs_tol=tolerance)


def same_value(got: Any, wanted: Any, loose: bool) -> bool:
    """Compare two encoded values as ``==`` compares the values themselves, without decoding them.

    The program chooses ``got``. In sets and dictionaries it could choose items whose hashes collide, which
    takes minutes to compare; sorted lists have no such weakness.

    Args:
        got: what the program returned, encoded by `encode`.
        wanted: the expected value, encoded likewise.
        loose: let tuples equal lists, and floats be equal within 1e-6.
    """
    a, b = _number(got), _number(wanted)
    if a is not None and b is not None:
        if loose and isinstance(b, float):
            return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
        return a == b
    if not (isinstance(got, list) and isinstance(wanted, list)):
        return type(got) is type(wanted) and bool(got == wanted)
    (tag, items), (wanted_tag, wanted_items) = got, wanted
    if loose:
        tag, wanted_tag = ("list" if t == "tuple" else t for t in (tag, wanted_tag))
    if tag != wanted_tag or tag == "object":
        return False
    if tag in ("bytes", "complex"):
        return bool(items == wanted_items)
    if tag in ("set", "dict"):
        items, wanted_items = sorted(items, key=_key), sorted(wanted_items, key=_key)
    if tag == "dict":
        items, wanted_items = ([["list", pair] for pair in x] for x in (items, wanted_items))
    return len(items) == len(wanted_items) and all(
        same_value(x, y, loose) for x, y in zip(items, wanted_items, strict=True)
    )


def _number(value: Any) -> int | float | None:
    if isinstance(value, (bool, float)):
        return value
    if isinstance(value, list) and value[0] == "int":
        return int(value[1], 16)
    return None


def _key(item: Any) -> str:
    """Return the key by which sets and dictionaries are sorted; equal numbers have the same one."""
    number = _number(item)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int):
        return hex(number)
    return json.dumps(item)


def is_true(value: Any) -> bool:
    """Tell whether an encoded value is true as a condition; objects that stay in the sandbox are."""
    number = _number(value)
    if number is not None:
        return bool(number)
    if isinstance(value, list):
        return value[0] == "object" or bool(value[1])
    return bool(value)
