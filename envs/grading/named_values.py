"""Reads answers that name their values: ``x = 3``, ``x = 3, y = 4``, ``f(x) = 2x``, ``3 = x``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecrl.envs.grading.structure import WORDS, split

_GREEK = (
    "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau"
    "|upsilon|(?:var)?phi|chi|psi|omega|ell"
)
_INDEX = r"(?:_(?:\w|\{[\w,+ -]+\}))?"
_NAME = (
    rf"[a-zA-Z]{_INDEX}(?:\s*\([a-zA-Z]\))?|\\(?i:{_GREEK})(?![a-zA-Z]){_INDEX}"
    r"|m?\s*\\angle\s*[a-zA-Z]+|(?!Not)[A-Z][a-z]{2,}"
)
_NAMED = re.compile(rf"({_NAME})\s*(?:=|\\in(?![a-zA-Z]))\s*(?=\S)")
_ONLY_NAME = re.compile(_NAME)
_POINT = re.compile(r"\(\s*([a-z](?:\s*,\s*[a-z])+)\s*\)\s*=\s*\((.+)\)")
_ARGUMENT = re.compile(r"\(([a-z])\)$")
_LETTER = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]")
_DEPENDENT = re.compile(r"y|[a-zA-Z]\([a-z]\)")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in|notin|equiv)(?![a-zA-Z])")


@dataclass(frozen=True)
class Named:
    """Values and their names.

    Attributes:
        names: one for each value, without white space.
        values: the values as written.
    """

    names: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def of_one(self) -> bool:
        """Whether all values have the same name, like the roots of an equation; indices are ignored."""
        return all(name.partition("_")[0] == self.base for name in self.names)

    @property
    def base(self) -> str:
        """The first name without its index."""
        return self.names[0].partition("_")[0]

    @property
    def indexed(self) -> bool:
        """Whether all names have an index."""
        return all("_" in name for name in self.names)

    @property
    def joined(self) -> str:
        """The values without names, as a list."""
        return ", ".join(self.values)


def read(text: str) -> Named | None:
    """Return the named values of a text; None if it names none, or is an equation that is not solved."""
    if one := _one(text):
        return Named((one[0],), (one[1],))
    if point := _POINT.fullmatch(text):  # (x, y) = (3, 4)
        both = [split(side, (",",)) for side in point.groups()]
        return Named(tuple(both[0]), tuple(both[1])) if len(both[0]) == len(both[1]) else None
    parts = split(WORDS.sub(" , ", text), (",",))
    ones = [_one(part) for part in parts]
    if len(ones) < 2 or any(one is None for one in ones):
        return None
    names, values = zip(*(one for one in ones if one), strict=True)
    return Named(names, values)


def alike(one: str, other: str) -> bool:
    """Tell whether two names may mean the same: they are equal, or both name the value of a function."""
    return one == other or bool(_DEPENDENT.fullmatch(one) and _DEPENDENT.fullmatch(other))


def _one(text: str) -> tuple[str, str] | None:
    match = _NAMED.match(text)
    if match and not _RELATION.search(text, match.end()):
        name, value = re.sub(r"\s", "", match.group(1)), text[match.end() :].strip()
        return (name, value) if _may_depend(name, value) else None
    before, equals, after = (part.strip() for part in text.partition("="))
    if equals and _ONLY_NAME.fullmatch(after) and not _RELATION.search(before):  # 3 = x
        return re.sub(r"\s", "", after), before
    return None


def _may_depend(name: str, value: str) -> bool:
    """Tell whether a value fits its function's argument: ``f(y) = x + 1`` does not, ``f(y) = 1`` does."""
    argument = _ARGUMENT.search(name)
    letters = {found for found in _LETTER.findall(value) if len(found) == 1} - {"e", "i"}
    return argument is None or argument.group(1) in letters or not letters
