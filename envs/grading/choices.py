"""Compares the letters of a multiple choice."""

from __future__ import annotations

import re

_LETTER = re.compile(r"\(?\s*([A-J])\s*\)?\.?")
_WITH_TEXT = re.compile(r"\(\s*([A-J])\s*\)\s*(?!,|(?:and|or)\b)(.*\S.*)", re.DOTALL)
# A letter alone, or with the text of its choice. That text may not name another letter or judge this one.
_CHOSEN = re.compile(
    r"(?:(?i:option|choice)\s+)?\(?\s*([A-J])\s*\)?(?:[.:)]?|(?:(?<=\))|[.:)])\s*"
    r"(?!.*(?:\b(?:or|and|no|not|nor|is|was|but|except|wrong|incorrect|false)\b|\b[A-J]\b))\S.*)",
    re.DOTALL,
)


def letter(gold: str) -> str | None:
    """Return the letter of a gold answer that is one, such as B or (B)."""
    match = _LETTER.fullmatch(gold)
    return match.group(1) if match else None


def letter_and_text(gold: str) -> tuple[str, str] | None:
    """Return letter and text of a gold answer such as (D) Alina; None for other texts."""
    match = _WITH_TEXT.fullmatch(gold)
    return (match.group(1), match.group(2)) if match else None


def without_letter(answer: str, letter: str) -> str:
    """Return an answer such as D. Alina without its letter; other answers as they are."""
    return re.sub(rf"^\(?\s*{letter}\s*[).:]+\s*(?=\S)", "", answer)


def chosen(answer: str) -> str | None:
    """Return the letter that an answer chooses; None if it chooses none, or several."""
    match = _CHOSEN.fullmatch(answer)
    return match.group(1) if match else None
