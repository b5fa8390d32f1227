"""The names that an answer may give its values: ``x_1``, ``f'(x)``, ``AB``, ``V_1:V_2``, ``(r, \\theta)``."""

from __future__ import annotations

import re

_GREEK = (
    "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau"
    "|upsilon|(?:var)?phi|chi|psi|omega|ell"
)
_INDEX = r"(?:_(?:\w|\{[\w,+ -]+\}))?"
_LETTER = (
    rf"(?:[a-zA-Z]|\\(?i:{_GREEK})(?![a-zA-Z])|\\(?:bar|hat|tilde|d?dot|overline)\s*\{{\s*[a-zA-Z]\s*\}})"
)
SYMBOL = rf"{_LETTER}{_INDEX}"
#: f(x), f'(x), f^{-1}(x), f(3), y'; the argument x of x(y + 1) = 3 is a factor and no argument.
_FUNCTION = (
    rf"{SYMBOL}(?:\s*'{{1,3}}|\s*\^\s*\{{-1\}}(?=\s*\())?(?:\s*\(\s*[a-zA-Z]\s*\))?"
    r"|\\?Pr(?![a-zA-Z])|[fghpqFGHPQ]'{0,3}\s*\(\s*-?\d{1,4}\s*\)|(?:P|E|\\Pr)\s*\([^()]{1,20}\)"
)
_DERIVATIVE = (
    r"\\frac\s*\{\s*d\^?\{?2?\}?\s*[a-z]\s*\}\s*\{\s*d\s*[a-z]\s*(?:\^\{?2\}?)?\s*\}|d[a-z]\s*/\s*d[a-z]"
)
_LENGTH = r"\|\s*[A-Z]{2}\s*\||\[\s*[A-Z]{3,4}\s*\]|[A-Z]{2,4}(?![a-zA-Z])|m?\s*\\angle\s*[a-zA-Z]+"
_MEASURED = rf"(?:{_LENGTH}|[A-Z]{_INDEX}|[a-z]_(?:\w|\{{\w+\}}))"
_QUOTIENT = (
    rf"{_MEASURED}(?:\s*[:/]\s*{_MEASURED})+|\\frac\s*\{{\s*{_MEASURED}\s*\}}\s*\{{\s*{_MEASURED}\s*\}}"
)
_WORDS = (
    r"(?!(?i:not|sin|cos|tan|log|exp|sqrt)\b)[a-zA-Z][a-z]{2,}(?:\s[a-zA-Z]?[a-z]+){0,3}"
    r"|\\(?:max|min|sup|inf)(?![a-zA-Z])"
)
NAME = rf"(?:{_QUOTIENT}|{_DERIVATIVE}|{_FUNCTION}|{_LENGTH}|{_WORDS})"
#: A sum, product or quotient of letters, such as m + n.
COMBINED = re.compile(
    rf"(?!(?:not|sin|cos|tan|log|ln|exp)(?![a-zA-Z]))(?:{SYMBOL}){{1,3}}(?:\s*(?:[-+/:]|\\cdot)\s*(?:{SYMBOL}){{1,3}})*"
    rf"|\\frac\s*\{{\s*{SYMBOL}\s*\}}\s*\{{\s*{SYMBOL}\s*\}}"
)
_ARGUMENT = re.compile(r"\(([a-z])\)$")
_ENVIRONMENT = re.compile(r"\\(?:begin|end) ?\{[a-zA-Z]+\}(?: ?\{[lcr| ]*\})?")
_VARIABLE = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]")
_INDEXED = re.compile(rf"({_LETTER})_(?:\w+|\{{.*\}})")
#: Names of which two may mean the same: the value of a function, its derivative, its second derivative.
_DEPENDENT = (
    re.compile(r"y|[a-zA-Z]\([a-z]\)"),
    re.compile(r"y'|[a-zA-Z]'\([a-z]\)|\\frac\{dy\}\{d[a-z]\}|dy/d[a-z]"),
    re.compile(r"y''|[a-zA-Z]''\([a-z]\)|\\frac\{d\^\{?2\}?y\}\{d[a-z]\^\{?2\}?\}"),
)


def canonical(name: str) -> str:
    """Write a name without white space, and without braces around an index of one character."""
    return re.sub(r"_\{(\w)\}", r"_\1", re.sub(r"\s", "", name))


def base(name: str) -> str:
    """Return a symbol without its index; other names as they are."""
    match = _INDEXED.fullmatch(name)
    return match.group(1) if match else name


def alike(one: str, other: str) -> bool:
    """Tell whether two names may mean the same: they are equal, or both name the value of a function."""
    return one == other or any(kind.fullmatch(one) and kind.fullmatch(other) for kind in _DEPENDENT)


def may_depend(name: str, value: str) -> bool:
    """Tell whether a value fits its function's argument: ``f(y) = x + 1`` does not, ``f(y) = 1`` does."""
    argument = _ARGUMENT.search(name)
    inside = _ENVIRONMENT.sub("", value)
    letters = {found for found in _VARIABLE.findall(inside) if len(found) == 1} - {"e", "i"}
    return argument is None or argument.group(1) in letters or not letters


def rename_argument(gold: str, answer: str, value: str) -> str | None:
    """Return a value of ``f(x)`` in terms of the gold answer's ``f(n)``.

    None unless only the argument differs; empty if the value has the new letter already.
    """
    ours, theirs = _ARGUMENT.search(gold), _ARGUMENT.search(answer)
    if ours is None or theirs is None or gold[: ours.start()] != answer[: theirs.start()]:
        return None
    new, old = ours.group(1), theirs.group(1)
    if new == old:
        return None
    if new in _VARIABLE.findall(value):
        return ""
    return _VARIABLE.sub(lambda m: new if m.group() == old else m.group(), value)
