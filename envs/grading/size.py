"""Tells whether an expression is small enough for sympy: short, flat, with small powers and factorials."""

from __future__ import annotations

import math
import re

_LONGEST = 400  # characters of an expression
DEEPEST = 24  # nested brackets
_DIGITS = re.compile(r"\d{40,}")
_LARGEST_POWER = 300
_LARGEST_REPEATED_POWER = 1000
_MOST_POWERS = 12
#: In an exponent, as in e^{-x^2}. Letters stand for small numbers.
_POWER_OF_LETTER = re.compile(r"\\[a-zA-Z]+|([a-zA-Z])\^(?:\{[1-4]\}|[1-4])(?!\d)")
_EXPONENT = re.compile(r"[-+]?(?:\\[a-zA-Z]+|\d+|[a-zA-Z])?")
_FACTORIAL = re.compile(r"(\d+|[)}\]])\s*!")
_LARGEST_FACTORIAL = 60
_MOST_FACTORIALS = 8
LINEAR = r"\d{0,2}\s*[a-z](?:\s*[-+]\s*(?:\d{1,2}|\d?\s*[a-z]))*"
_FACTORIAL_OF_LETTERS = re.compile(rf"\(\s*{LINEAR}\s*\)\s*!")
_DANGEROUS = re.compile(r"\\(?:sum|prod|int|lim|binom|choose|iint|oint)|__|import|(?<!\\)lambda|eval")


def comparable(text: str) -> bool:
    """Tell whether an expression is small enough for sympy."""
    text = re.sub(r"\s+", "", text)
    if len(text) > _LONGEST or "!!" in text or _DIGITS.search(text) or _DANGEROUS.search(text):
        return False
    if depth(text) > DEEPEST or _largest_power(text) > _LARGEST_REPEATED_POWER:
        return False
    factorials = _FACTORIAL.findall(_FACTORIAL_OF_LETTERS.sub("", text))
    return text.count("!") <= _MOST_FACTORIALS and all(
        f.isdigit() and len(f) <= 3 and int(f) <= _LARGEST_FACTORIAL for f in factorials
    )


def depth(text: str) -> int:
    """Return how deeply brackets are nested in a text."""
    now = deepest = 0
    for character in text:
        now += character in "([{"
        now -= character in ")]}"
        deepest = max(deepest, now)
    return deepest


def _largest_power(text: str) -> float:
    """Return the largest product of exponents over one base: 6 in (x^2 + 1)^3.

    It is infinite if an exponent is too large, or contains a power.
    """
    text = text.replace("**", "^").replace("\\exp", "e^")
    if text.count("^") > _MOST_POWERS:
        return math.inf
    levels, position = [1.0], 0  # the largest product so far in each open bracket
    while position < len(text):
        character = text[position]
        if character in "([{":
            levels.append(1.0)
        elif character in ")]}" and len(levels) > 1:
            inside = levels.pop()
            levels[-1] = max(levels[-1], inside)
        elif character == "^":
            exponent = _exponent(text, position + 1)
            below = levels[-1] if text[position - 1 : position] in (")", "]", "}", "|") else 1.0
            levels[-1] = max(levels[-1], below * _size(exponent))
            position += len(exponent)
        position += 1
    return max(levels)


def _exponent(text: str, start: int) -> str:
    """Return the exponent at a position: a number, a letter, a bracket, or a command with its brackets."""
    match = _EXPONENT.match(text, start)
    end = match.end() if match else start
    brackets = 2 if text[start : start + 1] == "\\" else 0 if end > start else 1
    for _ in range(brackets):
        if text[end : end + 1] in ("(", "[", "{"):
            end = _closing(text, end)
    return text[start:end] + ("^" if text[end : end + 1] == "^" else "")


def _closing(text: str, start: int) -> int:
    """Return the position after the bracket that closes the one at ``start``."""
    level = 0
    for position in range(start, len(text)):
        level += (text[position] in "([{") - (text[position] in ")]}")
        if level == 0:
            return position + 1
    return len(text)


def _size(exponent: str) -> float:
    exponent = _POWER_OF_LETTER.sub(lambda m: m.group(1) or m.group(), exponent)
    if "^" in exponent:
        return math.inf  # a tower
    numbers = re.findall(r"\d+", exponent)
    if any(len(number) > 6 or int(number) > _LARGEST_POWER for number in numbers):
        return math.inf
    return float(max((int(number) for number in numbers), default=1) or 1)
