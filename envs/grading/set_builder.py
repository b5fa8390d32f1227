"""Reads sets of points that a condition describes: ``\\{(x, y) : x + y = 1\\}``."""

from __future__ import annotations

import re

from ecrl.envs.grading.names import SYMBOL
from ecrl.envs.grading.structure import split

_LONGEST = 300  # characters
_DESCRIBED = re.compile(
    rf"\\\{{ ?\( ?({SYMBOL}(?: ?, ?{SYMBOL}){{1,3}}) ?\) ?"
    r"(?:\\in ?\\mathbb ?\{?([A-Z])\}? ?\^ ?\{?[2-4]\}? ?)?"
    r"(?::|\||\\mid(?![a-zA-Z]))(.*)\\\}"
)
_RELATION = re.compile(r"[=<>]|\\(?:le|ge)(?![a-zA-Z])")
_EITHER = re.compile(r"\bor\b|\\(?:lor|vee)(?![a-zA-Z])")
_TOKEN = re.compile(r"\\[a-zA-Z]+|[a-zA-Z](?:_(?:\w|\{\w+\}))?")


def conditions(gold: str, answer: str) -> tuple[str, str] | None:
    """Return the conditions of two sets of points, in the same variables; None if neither is such a set.

    The other answer may be the condition alone. The conditions are empty if the sets are of different kinds.
    """
    if max(len(gold), len(answer)) > _LONGEST:
        return None
    ours, theirs = _read(gold), _read(answer)
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None:
        _, domain, condition = ours or theirs or ([], "", "")
        alone = answer if ours else gold
        known = domain in ("", "R") and _RELATION.search(alone) and _one_of(condition) == _one_of(alone)
        return ((condition, answer) if ours else (gold, condition)) if known else ("", "")
    (names, domain, condition), (others, its, other) = ours, theirs
    free = set(_TOKEN.findall(other)) - set(others)
    if (
        _one_of(condition) != _one_of(other)
        or len(names) != len(others)
        or {domain or "R", its or "R"} != {domain or "R"}
        or free & set(names)
    ):
        return "", ""
    new = dict(zip(others, names, strict=True))
    return condition, _TOKEN.sub(lambda m: new.get(m.group(), m.group()), other)


def _one_of(condition: str) -> bool:
    """Tell whether one of several conditions is enough: x = 0 or y = 0."""
    return _EITHER.search(condition) is not None


def _read(text: str) -> tuple[list[str], str, str] | None:
    """Return variables, domain and condition."""
    match = _DESCRIBED.fullmatch(text)
    if match is None:
        return None
    names = split(match[1], (",",))
    return (names, match[2] or "", match[3].strip()) if len(set(names)) == len(names) else None
