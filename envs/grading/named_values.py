"""Reads answers that name their values: ``x = 3``, ``x = 3, y = 4``, ``3 = x``, ``(x, y) = (3, 4)``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecrl.envs.grading.names import COMBINED, NAME, SYMBOL, base, canonical, may_depend
from ecrl.envs.grading.structure import WORDS, split, structure

_NAMED = re.compile(rf"({NAME})\s*(?:=|\\in(?![a-zA-Z])|\\approx(?=\s*-?[\d.]+$))\s*(?=\S)")
_ONLY_NAME = re.compile(NAME)
_POINT = re.compile(rf"\(\s*({SYMBOL}(?:\s*,\s*{SYMBOL})+)\s*\)\s*(?:=|\\in(?![a-zA-Z]))\s*(.+)")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in|notin|equiv)(?![a-zA-Z])")
_CONSTANT = re.compile(r"(?:\\pi|e)\s*\\approx")  # no name: π ≈ 3.14
_COMPUTED = re.compile(r"[^a-zA-Z<>\\]*")
_RATIO = re.compile(r"^(\d+)\s*:\s*(\d+)$")
_CASES = "\\begin{cases}"


@dataclass(frozen=True)
class Named:
    """Values and their names.

    Attributes:
        names: one for each value, without white space.
        values: the values as written.
        point: whether the answer gives the order of the values, as in (a, n) = (3, 4).
    """

    names: tuple[str, ...]
    values: tuple[str, ...]
    point: bool = False

    @property
    def of_one(self) -> bool:
        """Whether all values have the same name, like the roots of an equation; indices are ignored."""
        return all(base(name) == self.base for name in self.names)

    @property
    def base(self) -> str:
        """The first name without its index."""
        return base(self.names[0])

    @property
    def indexed(self) -> bool:
        """Whether all names have an index."""
        return all("_" in name for name in self.names)

    @property
    def joined(self) -> str:
        """The values without names, as a list."""
        return ", ".join(self.values)

    @property
    def of_coordinates(self) -> bool:
        """Whether the names have an order of their own: x, y, z."""
        return set(self.names) <= {"x", "y", "z"}

    @property
    def in_order(self) -> tuple[str, ...]:
        """The values as the coordinates of a point: by their names, unless the answer gives another order."""
        if self.point and not self.of_coordinates:
            return self.values
        by_name = sorted(zip(self.names, self.values, strict=True), key=lambda pair: pair[0].lstrip("\\"))
        return tuple(value for _, value in by_name)


def read(text: str) -> Named | None:
    """Return the named values of a text; None if it names none, or is an equation that is not solved."""
    if one := _one(text):
        return Named((one[0],), (one[1],))
    if point := _POINT.fullmatch(text):
        return _point(*point.groups())
    if text[:1] == "[" and text[-1:] == "]":  # [x = 1, y = 2], as computer algebra writes it
        text = text[1:-1]
    ones = [_one(part) for part in split(WORDS.sub(" , ", text), (",",))]
    if len(ones) < 2 or any(one is None for one in ones):
        return None
    names, values = zip(*(one for one in ones if one), strict=True)
    return _repeated(names, values) or Named(names, values)


def read_combined(text: str) -> Named | None:
    """Return the value of a sum, product or quotient of letters, such as 37 of m + n = 37; else None."""
    name, equals, value = (part.strip() for part in text.partition("="))
    known = equals and COMBINED.fullmatch(name) and _COMPUTED.fullmatch(value)
    return Named((canonical(name),), (value,)) if known else None


def _one(text: str) -> tuple[str, str] | None:
    match = None if _CONSTANT.match(text) else _NAMED.match(text)
    if match and is_value(value := text[match.end() :].strip()):
        name = canonical(match.group(1))
        if ":" in name:
            value = _RATIO.sub(r"\\frac{\1}{\2}", value)  # 11:21, which could be a time of day
        return (name, value) if may_depend(name, value) else None
    before, equals, after = (part.strip() for part in text.partition("="))
    if equals and _ONLY_NAME.fullmatch(after) and not _RELATION.search(before):  # 3 = x
        return canonical(after), before
    return None


def is_value(text: str) -> bool:
    """Tell whether a text may be a value: no further relation, unless in cases or in 30 + 7 = 37."""
    computed = "=" in text and _COMPUTED.fullmatch(text) is not None
    return computed or text.startswith(_CASES) or not _RELATION.search(text)


def _point(coordinates: str, value: str) -> Named | None:
    """Read the coordinates of one point, or of several: (x, y) = (1, 2), (3, 4)."""
    names = tuple(canonical(name) for name in split(coordinates, (",",)))
    node = structure(value)
    if node is None or _RELATION.search(value):
        return None
    if node.kind == "tuple":
        return Named(names, node.parts, point=True) if len(node.parts) == len(names) else None
    return Named((f"({','.join(names)})",), (value,)) if node.kind in ("list", "set") else None


def _repeated(names: tuple[str, ...], values: tuple[str, ...]) -> Named | None:
    """Read p = 5, q = 2; p = 7, q = 2 as the points (p, q) = (5, 2), (7, 2); None if no names come again."""
    size = len(set(names))
    groups = [Named(names[i : i + size], values[i : i + size]) for i in range(0, len(names), size)]
    if size < 2 or len(groups) < 2 or any(set(group.names) != set(names) for group in groups):
        return None
    order = sorted(set(names), key=lambda name: name.lstrip("\\"))
    return Named((f"({','.join(order)})",), (", ".join(f"({', '.join(g.in_order)})" for g in groups),))
