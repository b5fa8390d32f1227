"""Compares dates and times of day, which must not be read as differences, quotients or ratios."""

from __future__ import annotations

import re

_FIGURES = re.compile(
    r"(\d{4})\s*([-/.])\s*(\d{1,2})\s*\2\s*(\d{1,2})|(\d{1,2})\s*([-/.])\s*(\d{1,2})\s*\6\s*(\d{4})"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:((?:mon|tues|wednes|thurs|fri|satur|sun)day),? )?"
_YEAR = r"(?:(?: ?, ?| )(\d{4}))?"
_IN_WORDS = re.compile(
    rf"(?:on )?{_WEEKDAY}(?:the )?(?:{_MONTH} (\d{{1,2}})|(\d{{1,2}})(?: of)? {_MONTH}){_YEAR}", re.IGNORECASE
)
_TIME = re.compile(r"(\d{1,2})\s*(?::\s*([0-5]\d))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)


def same_date(gold: str, answer: str) -> bool | None:
    """Compare dates, such as 2023-05-12 or May 12, 2023, part by part; None if neither is one."""
    ours, theirs = _date(gold), _date(answer)
    return None if ours is None and theirs is None else ours == theirs


def same_time(gold: str, answer: str) -> bool | None:
    """Compare times of day, such as 10:30 a.m.; None if the gold answer is none."""
    ours = _clock(gold)
    return None if ours is None else ours == _clock(answer)


def _date(text: str) -> tuple[str | int, ...] | None:
    """Return the parts of a date in figures in their order; weekday, month, day and year of one in words."""
    if match := _IN_WORDS.fullmatch(text):
        weekday, month, day, first, later, year = match.groups()
        number = _MONTHS.index((month or later)[:3].lower())
        return (weekday or "").lower(), number, int(day or first), year or ""
    match = _FIGURES.fullmatch(text)
    parts = [int(part) for part in match.groups() if part and part.isdigit()] if match else []
    short = [part for part in parts if part < 100]
    is_date = len(short) == 2 and all(1 <= part <= 31 for part in short) and min(short) <= 12
    return tuple(parts) if is_date and 1000 <= max(parts) < 3000 else None


def _clock(text: str) -> tuple[int, int, str] | None:
    """Return hour, minute, and half of the day if it is said; 7 a.m. is 7:00 a.m., and 19:30 is 7:30 p.m."""
    match = _TIME.fullmatch(text)
    if match is None or not (match[2] or match[3]) or int(match[1]) > 24:
        return None
    hour, half = int(match[1]), (match[3] or "").lower()
    if not half and 13 <= hour <= 23:
        hour, half = hour - 12, "p"
    return hour, int(match[2] or 0), half
