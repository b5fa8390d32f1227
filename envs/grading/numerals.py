"""Reads numerals: decimals, fractions, mixed numbers, powers of ten, words, percentages."""

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
#: 0.1666… and 0.2727…, whose last digits come at least twice, and are three at least.
_DOTTED = re.compile(r"([+-]?)\s*(\d{0,20})\.(\d{0,20}?)(?=\d{3})(\d{1,6}?)\4+\s*(?:\\[lc]dots|\.{3})")
#: Words of the numbers from zero to nineteen.
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORD = re.compile(rf"({'|'.join(_TENS)})(?: ({'|'.join(WORDS[1:10])}))?|({'|'.join(WORDS[::-1])})")
_SCALES = (
    (" million", 10**6, 1000),
    (" thousand", 1000, 1000),
    (" hundred", 100, 10),
)  # with their size, the most of them
_THOUSANDS = ("thousand", "million", "billion", "trillion")
_SCALED = re.compile(rf"(\d+(?:\.\d+)?) ({'|'.join(_THOUSANDS)})", re.IGNORECASE)
_PERCENT = re.compile(r"\s*(?:\\%|%|\b(?:percent|percentage|pct)\b)\s*$", re.IGNORECASE)


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
    elif match := _REPEATING.fullmatch(text) or _DOTTED.fullmatch(text):
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
        return _in_words(text)
    return -value if value is not None and sign == "-" else value


def _in_words(text: str) -> Fraction | None:
    """Return the value of a number below a billion in words, or of figures with a scale: 1.5 million."""
    if match := _SCALED.fullmatch(text):
        return Fraction(match[1]) * Fraction(10) ** (3 + 3 * _THOUSANDS.index(match[2].lower()))
    value = _word_value(" ".join(text.lower().replace("-", " ").split()))
    return Fraction(value) if value is not None else None


def _word_value(words: str) -> int | None:
    for scale, size, most in _SCALES:
        before, found, after = words.partition(scale)
        if found:
            count, rest = _word_value(before.strip()), after.strip().removeprefix("and ")
            below = _word_value(rest) if rest else 0
            known = count and below is not None and count < most and below < size
            return count * size + below if known and count and below is not None else None
    match = _WORD.fullmatch(words)
    if match is None:
        return None
    tens, ones, below_twenty = match.groups()
    if below_twenty:
        return WORDS.index(below_twenty)
    return 10 * _TENS.index(tens) + 20 + (WORDS.index(ones) if ones else 0)


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
