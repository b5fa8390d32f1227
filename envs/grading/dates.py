"""Compares dates and times of day, which must not be read as differences, quotients or ratios."""

from __future__ import annotations

import re

_DATE = re.compile(
    r"(\d{4})\s*([-/.])\s*(\d{1,2})\s*\2\s*(\d{1,2})|(\d{1,2})\s*([-/.])\s*(\d{1,2})\s*\6\s*(\d{4})"
)
_TIME = re.compile(r"\d{1,2}\s*:\s*[0-5]\d(?:\s*[ap]\.?m\.?)?|\d{1,2}\s*[ap]\.?m\.?", re.IGNORECASE)


def same_date(gold: str, answer: str) -> bool | None:
    """Compare dates in figures, such as 2023-05-12, part by part; None if neither is one."""
    ours, theirs = _date(gold), _date(answer)
    return None if ours is None and theirs is None else ours == theirs


def same_time(gold: str, answer: str) -> bool | None:
    """Compare times of day, such as 10:30 a.m.; None if the gold answer is none."""
    if not _TIME.fullmatch(gold):
        return None
    return _TIME.fullmatch(answer) is not None and _clock(gold) == _clock(answer)


def _date(text: str) -> list[int] | None:
    match = _DATE.fullmatch(text)
    parts = [int(part) for part in match.groups() if part and part.isdigit()] if match else []
    short = [part for part in parts if part < 100]
    is_date = len(short) == 2 and all(1 <= part <= 31 for part in short) and min(short) <= 12
    return parts if is_date and 1000 <= max(parts) < 3000 else None


def _clock(text: str) -> str:
    return re.sub(r"[\s.]|:00(?=\s*[ap])", "", text.lower())  # 7:00 a.m. is 7 a.m.
