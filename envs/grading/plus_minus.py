"""Writes ± as two values."""

from __future__ import annotations

import re

from ecrl.envs.grading.structure import split

_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")


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
