"""Writes an interval without points as a union of intervals: ``[0, 3] \\setminus \\{1\\}``."""

from __future__ import annotations

import math
import re

from ecrl.envs.grading.intervals import as_interval
from ecrl.envs.grading.plus_minus import both_values
from ecrl.envs.grading.structure import WORDS, split
from ecrl.envs.grading.symbolic import real_value

_MOST_POINTS = 8
_LONGEST = 300  # characters
_INTERVAL = r"[(\[][^()\[\],]+,[^()\[\],]+[)\]]"
_LINE = r"\\mathbb ?\{?R\}?|(?i:all (?:the )?real(?:s| numbers)(?: [a-z])?)"
_WITHOUT = re.compile(
    rf"(?:(?P<name>[a-z]) ?\\in ?)?(?P<base>{_LINE}|{_INTERVAL}) ?(?:"
    r"(?:\\setminus|\\backslash|-) ?\\\{(?P<points>[^{}]*(?:\{[^{}]*\}[^{}]*)*)\\\}"
    r"|,? ?(?i:except|but|excluding)(?i: for| not)? (?:[a-z] ?= ?)?(?P<except>.+)"
    r"|(?:,|where|with|and|such that) ?(?P<of>[a-z]) ?\\ne (?P<unequal>.+))"
)
_INEQUALITY_WITHOUT = re.compile(
    r"([^,]*[<>][^,]*|[^,]*\\[lg]e(?![a-zA-Z])[^,]*?)(?:,| and\b| with\b)(?: and\b)? ?(\w ?\\ne .+)"
)
_UNEQUAL = re.compile(r"(?P<name>[a-zA-Z]|\\(?:theta|alpha|lambda)) ?\\ne (?P<unequal>.+)")


def without_points(text: str) -> str:
    """Return an interval or the real line without points as a union of intervals; other texts as they are."""
    text = _with_interval(text) if len(text) <= _LONGEST else text
    found = _WITHOUT.fullmatch(text) or _UNEQUAL.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return text
    groups = found.groupdict()
    listed = groups.get("points") or groups.get("except") or groups["unequal"]
    named = split(WORDS.sub(" , ", listed), (",",))
    name = re.escape(groups.get("of") or groups.get("name") or " ")
    again = re.compile(rf"^{name} ?\\ne ?")  # x \ne 1, x \ne 2
    points = split(both_values(", ".join(again.sub("", part) for part in named)), (",",))
    values = {value: point for point in points if (value := real_value(point)) is not None}
    if not points or len(values) != len(points) or len(points) > _MOST_POINTS:
        return text
    base = groups.get("base") or ""
    left, right = _ends(base) if base[:1] in ("(", "[") else ("(-\\infty", "\\infty)")
    if not _value(left[1:], -math.inf) < min(values) <= max(values) < _value(right[:-1], math.inf):
        return text
    ordered = [values[value] for value in sorted(values)]
    begins, ends = [left, *(f"({point}" for point in ordered)], [*(f"{point})" for point in ordered), right]
    union = " \\cup ".join(f"{begin}, {end}" for begin, end in zip(begins, ends, strict=True))
    return f"{groups['name']} \\in {union}" if groups.get("name") else union


def _with_interval(text: str) -> str:
    """Write the inequality of x < 3, x \\ne 2 as an interval; other texts stay as they are."""
    match = _INEQUALITY_WITHOUT.fullmatch(text)
    found = as_interval(match[1].strip()) if match else None
    if match is None or found is None or "\\cup" in found[1] or match[2].split("\\ne")[0].strip() != found[0]:
        return text
    return f"{found[0]} \\in {found[1]}, {match[2]}"


def _ends(interval: str) -> tuple[str, str]:
    left, right = interval.split(",")
    return left.strip(), right.strip()


def _value(end: str, endless: float) -> float:
    """Return the value of an end; not a number if it has none, so that no point lies inside."""
    value = endless if "infty" in end else real_value(end)
    return math.nan if value is None else value
