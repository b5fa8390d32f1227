"""Compares numerals that name their base: ``204_5``, ``(204)_5``, ``204_{\\text{five}}``, ``204 base 5``."""

from __future__ import annotations

import re

from ecrl.envs.grading.numerals import WORDS, number

_NAMES = {word: WORDS.index(word) for word in WORDS[2:17]}
_NAME = "|".join([r"\d{1,2}", *reversed(_NAMES)])
_DIGITS = r"(?:\(\s*([0-9A-Za-z]+)\s*\)|\{\s*([0-9A-Za-z]+)\s*\}|([0-9A-Za-z]+))"
_BASE = re.compile(rf"{_DIGITS}\s*_\s*\{{?\s*\(?\s*(?:base\s*)?({_NAME})\s*\)?\s*\}}?", re.IGNORECASE)
_IN_BASE = re.compile(rf"{_DIGITS}\s*\(?\s*(?:in\s+)?base[\s-]*({_NAME})\)?", re.IGNORECASE)
_APART = re.compile(r"^(?=[0-9 ]*[A-F])[0-9A-F]+(?: [0-9A-F]+)+(?=\s*_)")  # A 32_{16}, from \text{A}32_{16}


def in_base(text: str) -> tuple[str, int] | None:
    """Return digits and base of a numeral that names its base; None if the text is no such numeral."""
    text = _APART.sub(lambda m: m.group().replace(" ", ""), text.strip())
    match = _BASE.fullmatch(text) or _IN_BASE.fullmatch(text)
    if match is None:
        return None
    digits = next(group for group in match.groups()[:3] if group)
    base = _NAMES.get(match.group(4).lower()) or int(match.group(4))
    letters = base == 16 and re.fullmatch(r"[A-Fa-f]{2,}", digits)
    if not letters and not any(c.isdigit() for c in digits):
        return None  # a name with an index
    return digits.upper().lstrip("0") or "0", base


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
