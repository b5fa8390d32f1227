"""Turns inequalities in one variable into intervals."""

from __future__ import annotations

import re

from ecrl.envs.grading.structure import split

_SIGN = re.compile(r"(<|>|\\(?:le|ge|lt|gt)(?![a-zA-Z]))")
_BELOW = {"<": "<", "\\lt": "<", "\\le": "\\le"}
_ABOVE = {">": "<", "\\gt": "<", "\\ge": "\\le"}  # with both sides swapped
_ABSOLUTE = re.compile(r"\|\s*([a-zA-Z])\s*\|\s*(<|>|\\(?:le|ge|lt|gt)(?![a-zA-Z]))([^<>|]*)")
_OR = re.compile(r"\s(?:or)\s|\\(?:lor|vee)(?![a-zA-Z])|,")
_AND = re.compile(r"\s(?:and)\s|\\(?:land|wedge)(?![a-zA-Z])")
_SET = re.compile(r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?::|\||\\mid)(.*)\\\}")
_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])")

#: What may stand before an inequality: all integers (n ≥ 3), real numbers x such that (x > 2).
_SUBJECT = re.compile(
    r"(?:for )?(?:all|any|every)? ?(?:the )?(?:positive (?=[a-z ]+(?:>|\\ge) ?\d))?"
    r"(?:real )?(?:(integers?)|reals?|numbers?|values? of)? ?"
    r"(?:([a-zA-Z]),? (?:such that|with|satisfying|where|for which) (?=\2\b))?"
    r"(?=[a-zA-Z] ?(?:[<>]|\\[lg][et](?![a-zA-Z])))",
    re.IGNORECASE,
)
_COUNTS = "ijklmn"  # letters of integers

_Range = tuple[str, str, str]  # variable, left end with its bracket, right end with its bracket
_POINT = re.compile(r"([a-zA-Z])\s*=\s*([^=]+)")


def as_interval(text: str) -> tuple[str, str] | None:
    """Return the variable and the interval (or union of intervals) of an inequality; None for other texts.

    Bounds must not contain variables: ``y > x`` equals ``x < y``, but their intervals would differ.
    """
    if "\\begin" in text:
        return None  # the inequality of a case
    if (subject := _SUBJECT.match(text)) and subject.group():
        inside = as_interval(text[subject.end() :])
        whole = inside is not None and subject.group(1) is not None
        return (f"integer {inside[0]}", inside[1]) if inside and whole else inside
    if described := _SET.fullmatch(text):  # {x : x > 2}
        inside = as_interval(described.group(2))
        return inside if inside and inside[0] == described.group(1) else None
    parts = [part.strip() for part in _OR.split(text)]
    points = [(match[1], match[2]) for part in parts if (match := _POINT.fullmatch(part))]
    found = [_either(part) for part in parts if not _POINT.fullmatch(part)]
    ranges = [one for part in found if part is not None for one in part]
    if None in found or not ranges or not all(_is_bound(value) for _, value in points):
        return None
    if len({name for name, *_ in (*ranges, *points)}) != 1:
        return None
    pieces = [f"{left}, {right}" for _, left, right in ranges] + [f"\\{{{value}\\}}" for _, value in points]
    return ranges[0][0], " \\cup ".join(pieces)


def same_variables(gold: str, answer: str | None) -> bool:
    """Tell whether two variables of `as_interval` may mean the same; an interval itself has none."""
    if answer is None or gold == answer:
        return gold == answer or not gold.startswith("integer")
    one, other = gold.removeprefix("integer "), answer.removeprefix("integer ")
    return one == other and one in _COUNTS


def _either(text: str) -> list[_Range] | None:
    """Read one inequality, a chain of two, or two joined by *and*; None for other texts."""
    if len(both := _AND.split(text)) == 2:
        one, other = (_either(part) for part in both)
        if one is None or other is None or len(one) != 1 or len(other) != 1 or one[0][0] != other[0][0]:
            return None
        (name, left, right), (_, left2, right2) = one[0], other[0]
        if "-\\infty" in left and "\\infty" in right2:
            return [(name, left2, right)]
        return [(name, left, right2)] if "\\infty" in right and "-\\infty" in left2 else None
    if around := _ABSOLUTE.fullmatch(text):
        return _around_zero(*around.groups())
    pieces = [piece.strip() for piece in _SIGN.split(text)]
    names, signs = pieces[::2], pieces[1::2]
    if signs and all(sign in _ABOVE for sign in signs):
        names, signs = names[::-1], [_ABOVE[sign] for sign in signs][::-1]
    elif not signs or any(sign not in _BELOW for sign in signs):
        return None
    signs = [_BELOW[sign] for sign in signs]
    if len(signs) == 2 and _is_variable(names[1]) and _is_bound(names[0]) and _is_bound(names[2]):
        return [(names[1], _left(names[0], signs[0]), _right(names[2], signs[1]))]
    if len(signs) == 1 and _is_variable(names[0]) and _is_bound(names[1]):
        return [(names[0], "(-\\infty", _right(names[1], signs[0]))]
    if len(signs) == 1 and _is_variable(names[1]) and _is_bound(names[0]):
        return [(names[1], _left(names[0], signs[0]), "\\infty)")]
    return None


def _around_zero(name: str, sign: str, bound: str) -> list[_Range] | None:
    """Read |x| < 2 as (-2, 2), |x| > 2 as the rest of the line."""
    bound = bound.strip()
    if not _is_bound(bound) or bound.startswith("-"):
        return None
    below = _BELOW.get(sign)
    if below:
        return [(name, _left(f"-{bound}", below), _right(bound, below))]
    above = _ABOVE[sign]
    return [(name, "(-\\infty", _right(f"-{bound}", above)), (name, _left(bound, above), "\\infty)")]


def _is_variable(text: str) -> bool:
    return re.fullmatch(r"[a-zA-Z](?:\([a-z]\))?|\\(?:theta|alpha|lambda)", text) is not None


def _is_bound(text: str) -> bool:
    plain = re.sub(r"\\[a-zA-Z]+", " ", text)
    return len(split(text, (",",))) == 1 and all(letter == "e" for letter in _LETTER.findall(plain))


def _left(bound: str, sign: str) -> str:
    return f"{'(' if sign == '<' else '['}{bound}"


def _right(bound: str, sign: str) -> str:
    return f"{bound}{')' if sign == '<' else ']'}"
