"""Compares answers in words, which must not be read as algebra."""

from __future__ import annotations

import re

from ecrl.envs.grading.units import FUNCTION

#: A class of numbers: all odd positive integers.
_CLASS = re.compile(
    r"(?:(?:the )?(?:set of )?(?:all|any|every)(?: the)? )?"
    r"((?:(?:odd|even|positive|negative|non-?negative|non-?zero|prime|composite|natural|whole|rational|irrational"
    r"|real) )+)"
    r"(integer|number|prime|multiple)s?"
)
_OPERATOR = re.compile(r"[\^+*]|\\(?:frac|sqrt|cdot)(?![a-zA-Z])")
#: Letters that are no product, such as abc: long words, several words, words of logic.
_NO_PRODUCT = re.compile(
    r"[a-zA-Z]{5,}|[a-zA-Z]{2,}\s+[a-zA-Z]{2,}|\b(?:not?|and|or|all|any|the|for|yes)\b", re.IGNORECASE
)


def is_word(text: str) -> bool:
    """Tell whether a text is a word or a sentence, which must not be read as algebra."""
    plain = re.sub(r"\\[a-zA-Z]+", "", text)
    if FUNCTION.search(text) or (_OPERATOR.search(text) and not _NO_PRODUCT.search(plain)):
        return False
    return re.search(r"(?<![\\a-zA-Z])(?:[a-zA-Z]{3,}|[Nn]o(?![a-zA-Z]))", plain) is not None


def plain_words(text: str) -> str:
    """Return words without article, and the adjectives of a class of numbers in alphabetical order."""
    text = re.sub(r"^(?:an?|the) ", "", text.lower())
    if numbers := _CLASS.fullmatch(text):
        return " ".join([*sorted(numbers[1].split()), numbers[2]])
    return squeezed(text)


def squeezed(text: str) -> str:
    """Remove spaces, except between two words or numbers."""
    return re.sub(r"(?<![\w.])\s+|\s+(?![\w.])", "", text)
