"""Finds the final answer in a response, by rules in a fixed order."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")
_BETWEEN_BOXES = re.compile(r"(?:[\s,;.$]|and|or|\\(?:text|quad|qquad|,|;|!| )|[{}])*", re.IGNORECASE)
# Prose between boxes of one sentence that does not judge them: \boxed{2}, and the other root is \boxed{3}.
_PROSE = re.compile(
    r"(?:[\s,;$]|\\(?:text|quad|qquad|,|;|!| |\(|\))|[{}]|[a-zA-Z](?:_\{?\w\}?)?\s*="
    r"|\b(?:and|or|also|as well as|the|other|another|second|third|one|is|are)\b"
    r"|\b(?:roots?|solutions?|values?|points?)\b"
    r")*",
    re.IGNORECASE,
)
_NAME = re.compile(r"([a-zA-Z](?:_\{?\w\}?)?)\s*=\s*\$?\s*$")
_LONGEST_NAME = 24
_LONGEST_BETWEEN = 200  # characters
_HASHES = re.compile(r"####[ \t]*(.+)")
_PHRASE = re.compile(r"answer\**\s*(?:is|:|=)[\s:]*(?=[^\s:])", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s|$)")


def extract(response: str) -> str | None:
    """Return the final answer of a response, or None if it gives none.

    Only the text after the last ``</think>`` counts, without a ``<think>`` that is not closed. The first of
    these rules that applies decides:

    1. The last ``\\boxed{…}``. Boxes side by side at the end (``\\boxed{1}, \\boxed{2}``), or in one sentence
       with only joining words between them, are one answer of several parts, or of one part if they are all
       the same. They keep their names if all have one: ``x = \\boxed{1}``, ``y = \\boxed{2}``. A box that is
       not closed was cut off and is not an answer.
    2. The rest of the line after the last ``####``.
    3. The text after the last "answer is" or "answer:", up to the end of the sentence.
    """
    text = response.rpartition("</think>")[2].partition("<think>")[0]
    boxes = list(_BOX.finditer(text))
    if boxes:
        return _boxed(text, [match.end() for match in boxes])
    if found := _HASHES.findall(text):
        return str(found[-1]).strip() or None
    if phrases := list(_PHRASE.finditer(text)):
        return _clean_phrase(text[phrases[-1].end() :]) or None
    return None


def _boxed(text: str, starts: list[int]) -> str | None:
    """Return the content of the last box and of the boxes right before it."""
    parts: list[str] = []
    names: list[str] = []
    begin = -1  # where the box begins that was read last
    for start in reversed(starts):
        end = closing_brace(text, start)
        if end is None:
            break
        if parts and not _beside(text, end + 1, begin):
            break
        parts.append(text[start + 1 : end].strip())
        begin = text.rfind("\\", 0, start)
        names += _NAME.findall(text[max(0, begin - _LONGEST_NAME) : begin])
    if len(parts) > 1 and len(names) == len(parts) and all(parts):
        parts = [f"{name} = {part}" for name, part in zip(names, parts, strict=True)]
    parts = [part for part in reversed(parts) if part]
    repeated = len(set(parts)) == 1
    return parts[0] if repeated else ", ".join(parts) or None


def _beside(text: str, begin: int, end: int) -> bool:
    """Tell whether nothing stands between two boxes but what joins parts of one answer."""
    if end - begin > _LONGEST_BETWEEN:
        return False
    return any(joins.fullmatch(text, begin, end) for joins in (_BETWEEN_BOXES, _PROSE))


def closing_brace(text: str, start: int) -> int | None:
    """Return the position of the brace that closes the one at ``start``, or None."""
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # an escaped brace does not count
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None


def _clean_phrase(text: str) -> str:
    line = text.splitlines()[0]
    end = _SENTENCE_END.search(line)
    line = line[: end.start()] if end else line
    return line.strip().removeprefix("**").removesuffix("**").strip()
