"""Whether an answer is the gold one, however it is written."""

from __future__ import annotations

import re
from fractions import Fraction

from ecrl.envs.grading import symbolic
from ecrl.envs.grading.normal import normalise
from ecrl.envs.grading.structure import Node, split, structure

LONGEST = 2000  # characters of an answer
_MOST_PARTS = 64

_NUMBER = re.compile(
    r"([+-]?)\s*(\d+(?:\.\d*)?|\.\d+)(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*([+-]?\d{1,3})\s*\}?|[eE]([+-]?\d{1,3}))?"
)
_FRACTION = re.compile(r"([+-]?)\s*\\frac\s*\{\s*([+-]?\s*\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_SLASH = re.compile(r"([+-]?)\s*(\d+)\s*/\s*(\d+)")
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s*(?:\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\s(\d+)\s*/\s*(\d+))")
_BASE = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*(?:base\s*)?(\d{1,2}|two|three|eight|ten|sixteen)\s*\}?")
_IN_BASE = re.compile(
    r"([0-9A-Za-z]+)\s*\(?\s*(?:in\s+)?base[\s-]*(\d{1,2}|two|three|eight|ten|sixteen)\)?", re.IGNORECASE
)
_BASES = {"two": 2, "three": 3, "eight": 8, "ten": 10, "sixteen": 16}
_CHOICE = re.compile(r"\(?\s*([A-J])\s*\)?(?:[.:)]?\s+.*)?", re.DOTALL)
_VARIABLE = re.compile(
    r"(?:[a-zA-Z]|\\[a-zA-Z]+|[A-Za-z]\s*\([a-z]\)|[a-zA-Z]_\{?\w+\}?)\s*(?:=|:|\\in)\s*(?=\S)"
)
_UNIT = re.compile(
    r"\s*\\?\b(?:square|cubic|sq)?\s*(?:km|cm|mm|dm|m|kg|mg|g|lbs?|mph|km/h|m/s|hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s|"
    r"days?|weeks?|months?|years?|yrs?|meters?|metres?|centimeters?|kilometers?|miles?|inch(?:es)?|in|feet|foot|ft|yards?|"
    r"units?|dollars?|cents?|euros?|usd|people|students?|liters?|litres?|gallons?|grams?|kilograms?|pounds?|radians?|rad|"
    r"degrees?|points?|ways|numbers|apples|books|marbles|pages)\s*(?:\^\s*\{?\s*[23]\s*\}?)?\.?$",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"\s*(?:\\%|%|\bpercent\b)\s*$", re.IGNORECASE)


def equivalent(gold: str, answer: str, tolerance: float = 1e-6) -> bool:
    """Whether ``answer`` says the same as ``gold``; both as they were written.

    Args:
        gold: the right answer.
        answer: any text at all; what is too large to be an answer is wrong.
        tolerance: relative, where the gold answer is a decimal number.
    """
    if len(answer) > LONGEST:
        return False
    return _same(normalise(gold), normalise(answer), tolerance)


def _same(gold: str, answer: str, tolerance: float) -> bool:
    if not answer or not gold:
        return False
    if _squeezed(gold) == _squeezed(answer):
        return True
    choice = re.fullmatch(r"\(?\s*([A-J])\s*\)?\.?", gold)
    if choice:
        match = _CHOICE.fullmatch(answer)
        return match is not None and match.group(1) == choice.group(1)
    base, other = _in_base(gold), _in_base(answer)
    if base or other:
        return base is not None and _same_base(base, other, answer)
    gold, answer = _strip_variable(gold, answer)
    pair = _plus_minus(gold), _plus_minus(answer)
    if pair[0] != gold or pair[1] != answer:
        return _same(*pair, tolerance)
    left, right = structure(gold), structure(answer)
    if left or right:
        return _same_structure(left, right, gold, answer, tolerance)
    return _same_scalar(gold, answer, tolerance)


def _same_structure(left: Node | None, right: Node | None, gold: str, answer: str, tolerance: float) -> bool:
    """Compare part by part; a set and a plain list of its elements are the same."""
    left = left or Node("list", (gold,))
    right = right or Node("list", (answer,))
    kinds = {left.kind, right.kind}
    if len(left.parts) != len(right.parts) or len(left.parts) > _MOST_PARTS:
        return False
    if kinds <= {"set", "list"}:
        return _same_in_any_order(left.parts, right.parts, tolerance)
    if kinds == {"union"}:
        return _same_in_any_order(left.parts, right.parts, tolerance)
    if len(kinds) > 1 or left.border != right.border:
        return False
    return all(_same(g, a, tolerance) for g, a in zip(left.parts, right.parts, strict=True))


def _same_in_any_order(gold: tuple[str, ...], answer: tuple[str, ...], tolerance: float) -> bool:
    rest = list(answer)
    for part in gold:
        found = next((i for i, other in enumerate(rest) if _same(part, other, tolerance)), None)
        if found is None:
            return False
        rest.pop(found)
    return True


def _same_scalar(gold: str, answer: str, tolerance: float) -> bool:
    percents = _PERCENT.search(gold), _PERCENT.search(answer)
    plain = _PERCENT.sub("", gold), _PERCENT.sub("", answer)
    if any(percents):
        return _same_percent(plain, percents[0] is not None, percents[1] is not None, tolerance)
    without = _strip_unit(gold), _strip_unit(answer)
    if without[0] and without[1]:
        units = gold[len(without[0]) :], answer[len(without[1]) :]
        if all(u.strip() for u in units) and not _same_unit(*units):
            return False
        gold, answer = without
    a, b = number(gold), number(answer)
    if a is not None and b is not None:
        return _close(a, b, tolerance if "." in gold else 0.0)
    if _is_word(gold) or _is_word(answer):
        return _squeezed(gold).lower() == _squeezed(answer).lower()
    return symbolic.same(gold, answer, tolerance if a is not None and "." in gold else 0.0)


def _same_percent(plain: tuple[str, str], gold_has: bool, answer_has: bool, tolerance: float) -> bool:
    """50 % is 50 % and 0.5; a bare 50 stands for 50 % where either side may have left out the sign."""
    gold, answer = plain
    if _same_scalar(gold, answer, tolerance):
        return True
    a, b = number(gold), number(answer)
    if a is None or b is None or gold_has == answer_has:
        return False
    return _close(a / 100, b, tolerance) if gold_has else _close(a, b / 100, tolerance)


def number(text: str) -> Fraction | None:
    """Return the exact value of a numeral: integer, decimal, power of ten, fraction or mixed number."""
    text = text.strip()
    if len(text) > 100:
        return None
    if match := _MIXED.fullmatch(text):
        sign, whole, *rest = match.groups()
        above, below = rest[0] or rest[2], rest[1] or rest[3]
        value = int(whole) + Fraction(int(above), int(below)) if int(below) else None
    elif match := _FRACTION.fullmatch(text) or _SLASH.fullmatch(text):
        sign, above, below = match.groups()
        value = Fraction(int(above.replace(" ", "")), int(below)) if int(below) else None
    elif match := _NUMBER.fullmatch(text):
        sign, digits, power, exponent = match.groups()
        value = Fraction(digits if digits[-1] != "." else digits[:-1]) * Fraction(10) ** int(
            power or exponent or 0
        )
    else:
        return None
    return -value if value is not None and sign == "-" else value


def _close(gold: Fraction, answer: Fraction, tolerance: float) -> bool:
    return abs(gold - answer) <= abs(gold) * Fraction(tolerance)


def _in_base(text: str) -> tuple[str, int] | None:
    match = _BASE.fullmatch(text.strip()) or _IN_BASE.fullmatch(text.strip())
    if match is None or not any(c.isdigit() for c in match.group(1)) or not match.group(1)[0].isalnum():
        return None
    base = _BASES.get(match.group(2).lower()) or int(match.group(2))
    return match.group(1).upper().lstrip("0") or "0", base


def _same_base(base: tuple[str, int], other: tuple[str, int] | None, answer: str) -> bool:
    """Digits must agree, and the base if the answer names one."""
    return base == other if other else base[0] == (answer.strip().upper().lstrip("0") or "0")


def _strip_variable(gold: str, answer: str) -> tuple[str, str]:
    """Drop ``x =`` where only one side has it, or both have the same."""
    return _after_equals(gold), _after_equals(answer)


def _after_equals(text: str) -> str:
    match = _VARIABLE.match(text)
    if match and text.count("=") <= 1 and not re.search(r"\\(?:le|ge|ne)\b|<|>", text):
        return text[match.end() :].strip()
    # Several values, each with its name: x = 1, y = 2.
    parts = split(text, (",",))
    if len(parts) > 1 and all(_VARIABLE.match(part) for part in parts):
        return ", ".join(_after_equals(part) for part in parts)
    if text.count("=") == 1 and not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)):
        return text.rpartition("=")[2].strip()  # 3 + 4 = 7
    return text


def _plus_minus(text: str) -> str:
    if text.count("\\pm") != 1:
        return text
    before, after = text.split("\\pm")
    return f"{before} + {after}, {before} - {after}" if before.strip() else f"{after}, -{after}"


def _strip_unit(text: str) -> str:
    stripped = _UNIT.sub("", text)
    return stripped.strip() if number(stripped) is not None or re.search(r"[\d})]\s*$", stripped) else text


def _same_unit(gold: str, answer: str) -> bool:
    return re.sub(r"[\s.s]", "", gold.lower()) == re.sub(r"[\s.s]", "", answer.lower())


def _is_word(text: str) -> bool:
    """A name or a sentence, which no algebra should touch."""
    return bool(
        re.search(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", re.sub(r"\\[a-zA-Z]+", "", text))
    ) and not re.search(r"(?<![a-zA-Z])(?:sqrt|sin|cos|tan|log|ln|exp|abc)(?![a-zA-Z])", text)


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
