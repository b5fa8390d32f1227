"""Writes sums of unit vectors as points: ``3\\mathbf{i} - 2\\mathbf{j} + \\mathbf{k}`` is (3, -2, 1)."""

from __future__ import annotations

import re

_LONGEST = 300  # characters
_FONT = r"\\(?:mathbf|boldsymbol|bm|vec|hat|widehat|textbf|overrightarrow)"
_UNIT = re.compile(
    rf"{_FONT} ?\{{ ?(?:{_FONT} ?\{{ ?\\?([ijk])(?:math)? ?\}}|\\?([ijk])(?:math)?) ?\}}"
    rf"|{_FONT} ([ijk])(?![a-zA-Z])"
)
_PLAIN = re.compile(r"(-?\d*)i([-+]\d*)j([-+]\d*)k")
_MARKS = {"i": "\x01", "j": "\x02", "k": "\x03"}


def as_point(text: str) -> str:
    """Return a sum of multiples of i, j and k as a point; other texts as they are.

    The unit vectors must be marked by their font, unless all three have whole coefficients. A sum without k
    is a point of the plane.
    """
    if len(text) > _LONGEST:
        return text
    if plain := _PLAIN.fullmatch(text.replace(" ", "")):
        return f"({', '.join(_factor(coefficient) for coefficient in plain.groups())})"
    name, equals, value = text.rpartition("=")
    marked = _UNIT.sub(lambda m: _MARKS[m[1] or m[2] or m[3]], value)
    found: dict[str, str] = {}
    for term in _terms(marked):
        units = [unit for unit in _MARKS if _MARKS[unit] in term]
        if len(units) != 1 or term.count(_MARKS[units[0]]) != 1 or units[0] in found:
            return text
        coefficient = re.sub(r"\\cdot\s*$", "", term.replace(_MARKS[units[0]], "").strip())
        found[units[0]] = _factor(coefficient)
    if len(found) < 2:
        return text
    return f"{name}{equals}({', '.join(found.get(unit, '0') for unit in ('ijk' if 'k' in found else 'ij'))})"


def _terms(text: str) -> list[str]:
    """Split a sum at its signs outside all brackets; each term keeps its sign."""
    depth, marked = 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        marked += f"\x00{character}" if depth == 0 and character in "+-" else character
    return [term.strip() for term in marked.split("\x00") if term.strip()]


def _factor(coefficient: str) -> str:
    """Write a coefficient without a plus sign; none is 1."""
    coefficient = coefficient.strip().removeprefix("+").strip()
    return f"{coefficient}1" if coefficient in ("", "-") else coefficient
