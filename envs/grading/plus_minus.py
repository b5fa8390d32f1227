"""Writes ± as two values."""

from __future__ import annotations

import re
from itertools import product

from ecrl.envs.grading.structure import split

_MOST = 4  # coordinates
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")


def each_value(text: str) -> str:
    """Replace a point such as (±1, ±2) by all points with these signs; other texts stay as they are."""
    if text[:1] + text[-1:] != "()":
        return text
    values = [_both_signs(part) for part in split(text[1:-1], (",",))]
    several = [pair for pair in values if len(pair) > 1]
    if not 2 <= len(several) <= len(values) <= _MOST:
        return text
    return ", ".join(f"({', '.join(point)})" for point in product(*values))


def both_values(text: str) -> str:
    """Replace each a ± b of a list by its two values; within one part, all signs change together."""
    parts = split(text, (",",))
    if all(_SIGN.search(part) is None for part in parts):
        return text
    return ", ".join(value for part in parts for value in _both_signs(part))


def _both_signs(text: str) -> tuple[str, ...]:
    if not _SIGN.search(text):
        return (text,)
    upper = _SIGN.sub(lambda m: "+" if m.group() == "\\pm" else "-", text)
    lower = _SIGN.sub(lambda m: "-" if m.group() == "\\pm" else "+", text)
    return upper.strip().removeprefix("+"), lower.strip().removeprefix("+")
