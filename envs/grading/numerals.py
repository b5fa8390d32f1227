"""Reads numerals: decimals, fractions, mixed numbers, powers of ten, other bases, percentages."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*([+-]?\d{1,3})\s*\}?|[eE]([+-]?\d{1,3}))?"
)
_POWER_OF_TEN = re.compile(r"([+-]?)\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|(\d))")
_FRACTION = re.compile(r"([+-]?)\s*\\frac\s*\{\s*([+-]?\s*\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_SLASH = re.compile(r"([+-]?)\s*(\d+)\s*/\s*(\d+)")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s*(?:\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\s(\d+)\s*/\s*(\d+))")
_REPEATING = re.compile(r"([+-]?)\s*(\d*)\.(\d*)\s*\\overline\s*\{\s*(\d+)\s*\}")
_NAMES = {"two": 2, "three": 3, "eight": 8, "ten": 10, "sixteen": 16}
_BASE = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*(?:base\s*)?(\d{1,2}|two|three|eight|ten|sixteen)\s*\}?")
_IN_BASE = re.compile(
    r"([0-9A-Za-z]+)\s*\(?\s*(?:in\s+)?base[\s-]*(\d{1,2}|two|three|eight|ten|sixteen)\)?", re.IGNORECASE
)
_PERCENT = re.compile(r"\s*(?:\\%|%|\bpercent\b)\s*$", re.IGNORECASE)


def number(text: str) -> Fraction | None:
    """Return the exact value of a numeral; None if the text is not a numeral."""
    text = text.strip()
    if len(text) > 100:
        return None
    value: Fraction | None
    if match := _MIXED.fullmatch(text):
        sign, whole, *rest = match.groups()
        above, below = rest[0] or rest[2], rest[1] or rest[3]
        value = int(whole) + Fraction(int(above), int(below)) if int(below) else None
    elif match := _FRACTION.fullmatch(text) or _SLASH.fullmatch(text):
        sign, above, below = match.groups()
        value = Fraction(int(above.replace(" ", "")), int(below)) if int(below) else None
    elif match := _REPEATING.fullmatch(text):
        sign, whole, fixed, period = match.groups()
        nines = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        value = Fraction(f"{whole or 0}.{fixed or 0}") + nines
    elif match := _POWER_OF_TEN.fullmatch(text):
        sign, *exponents = match.groups()
        value = Fraction(10) ** int(exponents[0] or exponents[1])
    elif match := _NUMBER.fullmatch(text):
        sign, digits, power, exponent = match.groups()
        value = Fraction(digits if digits[-1] != "." else digits[:-1]) * Fraction(10) ** int(
            power or exponent or 0
        )
    else:
        return None
    return -value if value is not None and sign == "-" else value


def ratio(text: str) -> list[Fraction] | None:
    """Return the parts of a ratio of three or more, divided by the first; None if the text is no ratio."""
    parts = [number(part) for part in text.split(":")]
    if len(parts) < 3 or not parts[0]:
        return None
    return [part / parts[0] for part in parts if part is not None] if None not in parts else None


def close(gold: Fraction, answer: Fraction, tolerance: float) -> bool:
    """Tell whether two numbers are equal within a relative tolerance."""
    return abs(gold - answer) <= abs(gold) * Fraction(tolerance)


def split_percent(text: str) -> tuple[str, bool]:
    """Return a text without its percent sign, and whether it had one."""
    return _PERCENT.sub("", text), _PERCENT.search(text) is not None


def in_base(text: str) -> tuple[str, int] | None:
    """Return digits and base of a numeral that names its base; None if the text is no such numeral."""
    match = _BASE.fullmatch(text.strip()) or _IN_BASE.fullmatch(text.strip())
    if match is None:
        return None
    base = _NAMES.get(match.group(2).lower()) or int(match.group(2))
    letters = base == 16 and re.fullmatch(r"[A-Fa-f]{2,}", match.group(1))
    if not letters and not any(c.isdigit() for c in match.group(1)):
        return None  # a name with an index
    return match.group(1).upper().lstrip("0") or "0", base


def same_in_base(gold: str, answer: str) -> bool | None:
    """Compare numerals of which one names its base; None if neither does.

    The digits must agree, and so must the bases if both name one. An answer in base ten equals a gold answer
    without a base.
    """
    ours, theirs = in_base(gold), in_base(answer)
    if ours and theirs:
        return ours == theirs
    if ours:
        return ours[0] == (answer.strip().upper().lstrip("0") or "0")
    if theirs:
        value = number(gold)
        return theirs[1] == 10 and value is not None and number(theirs[0]) == value
    return None
