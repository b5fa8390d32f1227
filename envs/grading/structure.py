"""Splits an answer into its parts: sets, tuples, intervals, unions, matrices, lists."""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPEN, _CLOSE = "([{", ")]}"
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\s*\{([pbB]?matrix|array)\}(?:\s*\{[lcr|\s]*\})?(.*?)\\end\s*\{\1\}\s*[)\]]?",
    re.DOTALL,
)
_SCALED = re.compile(
    r"([-+]|[-+]?(?:\d|\\pi|\\frac\{[^{}a-zA-Z]+\}\{[^{}a-zA-Z]+\}|\\sqrt\{\d+\}|\s|[./])++)(?:\\cdot|\\times)?\s*"
    r"([(\[]?\s*\\begin.*)",
    re.DOTALL,
)
_CASES = re.compile(r"\\begin\{cases\}(.*)\\end\{cases\}", re.DOTALL)
_CONDITION = re.compile(r"^(?:if|for|when|where|as)\b\s*")
_SIGN = re.compile(r"([<>]|\\[lg]e(?![a-zA-Z]))")
_ABOVE = {">": "<", "\\ge": "\\le"}
#: What separates several answers, apart from commas.
WORDS = re.compile(r"(?<![a-zA-Z\\])(?:and|or)(?![a-z])|\\(?:quad|qquad)|;")


@dataclass(frozen=True)
class Node:
    """An answer with several parts.

    Attributes:
        kind: ``tuple`` (ordered), ``set`` and ``list`` (any order), ``interval``, ``union``, ``cases``
            (any order), ``matrix`` or ``chain`` (of inequalities).
        parts: texts of the parts; those of a matrix row by row.
        border: the brackets of an interval, the shape of a matrix, or the signs of a chain.
    """

    kind: str
    parts: tuple[str, ...]
    border: str = ""

    @property
    def as_point(self) -> Node:
        """A matrix of one column as a tuple; other nodes as they are."""
        column = self.kind == "matrix" and set(self.border.split(",")) == {"1"}
        return Node("tuple", self.parts, "()") if column else self


def structure(text: str) -> Node | None:
    """Return the structure of an answer, or None for a single expression."""
    text = text.strip()
    if match := _MATRIX.fullmatch(text):
        return _matrix(match.group(2))
    if (match := _SCALED.fullmatch(text)) and (inside := _MATRIX.fullmatch(match.group(2))):
        return _scaled(match.group(1).strip(), _matrix(inside.group(2)))
    if match := _CASES.fullmatch(text):
        return _cases(match.group(1))
    union = split(text, ("\\cup",))
    if len(union) > 1:
        return Node("union", tuple(union))
    if text.startswith("\\{") and text.endswith("\\}") and _closes_at_end(text[1:-2] + "}"):
        return Node("set", tuple(split(text[2:-2], (",", ";"))) if text[2:-2].strip() else ())
    if text == "\\emptyset":
        return Node("set", ())
    if text[:1] in "([" and text[-1:] in ")]" and _closes_at_end(text):
        return _bracketed(text)
    parts = split(WORDS.sub(" , ", text), (",",))
    if len(parts) > 1:
        return Node("list", tuple(parts))
    return _chain(text)


def _chain(text: str) -> Node | None:
    """Return the parts of a < b < c from the least; None for other texts."""
    parts, signs = _SIGN.split(text)[::2], _SIGN.findall(text)
    if len(signs) < 2 or not all(part.strip() for part in parts):
        return None
    if all(sign in _ABOVE for sign in signs):
        parts, signs = parts[::-1], [_ABOVE[sign] for sign in signs[::-1]]
    return Node("chain", tuple(part.strip() for part in parts), " ".join(signs))


def _bracketed(text: str) -> Node | None:
    parts = split(text[1:-1], (",", ";"))
    if len(parts) < 2:
        return None
    if text[0] == "[" and all(part[0] == "[" and part[-1] == "]" for part in parts):  # [[1, 2], [3, 4]]
        return _matrix("\\cr".join("&".join(split(part[1:-1], (",",))) for part in parts))
    half_open = text[0] + text[-1] in ("(]", "[)")
    endless = len(parts) == 2 and any("infty" in part for part in parts)
    if half_open or endless:
        return Node("interval", tuple(parts), text[0] + text[-1]) if len(parts) == 2 else None
    # A pair in round brackets may be a point or an open interval; both are compared part by part.
    return Node("tuple", tuple(parts), text[0] + text[-1])


def _matrix(body: str) -> Node:
    rows = [row for row in body.split("\\cr") if row.strip()]
    cells = [[cell.strip() for cell in row.split("&")] for row in rows]
    shape = ",".join(str(len(row)) for row in cells)
    return Node("matrix", tuple(cell for row in cells for cell in row), shape)


def _scaled(factor: str, matrix: Node) -> Node:
    """Return a number times a matrix."""
    times = factor if factor in "+-" else f"{factor} \\cdot "
    return Node(matrix.kind, tuple(f"{times}({cell})" for cell in matrix.parts), matrix.border)


def _cases(body: str) -> Node | None:
    """Return the rows of a function by cases, each as a matrix of a value and its condition."""
    rows = [row.split("&") for row in body.split("\\cr") if row.strip()]
    if any(len(row) < 2 for row in rows):
        return None
    cells = [(row[0].strip(" ,;"), _CONDITION.sub("", " ".join(row[1:]).strip(" ,;."))) for row in rows]
    return Node("cases", tuple(f"\\begin{{matrix}}{value} & {when}\\end{{matrix}}" for value, when in cells))


def split(text: str, separators: tuple[str, ...]) -> list[str]:
    """Split a text at separators outside all brackets; empty parts are left out."""
    parts, depth, begin, position = [], 0, 0, 0
    while position < len(text):
        here = next((s for s in separators if depth == 0 and text.startswith(s, position)), None)
        if here:
            parts.append(text[begin:position])
            position += len(here)
            begin = position
            continue
        depth += text[position] in _OPEN
        depth -= text[position] in _CLOSE
        position += 1
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip()]


def _closes_at_end(text: str) -> bool:
    """Tell whether the first bracket is closed at the end of the text."""
    depth = 0
    for position, character in enumerate(text):
        depth += character in _OPEN
        depth -= character in _CLOSE
        if depth == 0:
            return position == len(text) - 1
    return False
