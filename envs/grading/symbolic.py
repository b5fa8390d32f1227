"""Compares two expressions with sympy, through math-verify's LaTeX parser, which never evaluates code."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_LONGEST = 400  # characters of an expression
_DEEPEST = 24  # nested brackets
_DIGITS = re.compile(r"\d{40,}")
_POWER = re.compile(r"(?:\^|\*\*)\s*\{?\s*\(?\s*-?\s*(\d+)")
_LARGEST_POWER = 300
_FACTORIAL = re.compile(r"(\d+|[)}\]])\s*!")
_LARGEST_FACTORIAL = 60
_DANGEROUS = re.compile(r"\\(?:sum|prod|int|lim|binom|choose|iint|oint)|__|import|lambda|eval")
_PRECISION = 30  # digits at which expressions are compared
_POINTS = (0.7390851332151607, 1.6180339887498949, 2.2955871493926380)


def comparable(text: str) -> bool:
    """Whether an expression is small enough to be given to sympy at all."""
    text = re.sub(r"\s+", "", text)
    if len(text) > _LONGEST or "!!" in text or _DIGITS.search(text) or _DANGEROUS.search(text):
        return False
    depth = deepest = 0
    for character in text:
        depth += character in "([{"
        depth -= character in ")]}"
        deepest = max(deepest, depth)
    if (
        deepest > _DEEPEST
        or text.count("^") > 12
        or re.search(r"\^[^+\-*/ ]*\^", text.replace("{", "").replace("(", ""))
    ):
        return False
    if any(len(p) > 6 or int(p) > _LARGEST_POWER for p in _POWER.findall(text)):
        return False
    factorials = _FACTORIAL.findall(text)
    return (
        all(f.isdigit() and len(f) <= 3 and int(f) <= _LARGEST_FACTORIAL for f in factorials)
        and len(factorials) <= 4
    )


@lru_cache(maxsize=4096)
def parse(text: str) -> Any:
    """Return the sympy expression of a LaTeX or plain one, or None."""
    if not comparable(text):
        return None
    import sympy
    from latex2sympy2_extended import latex2sympy

    try:
        found = latex2sympy(_as_latex(text))
    except Exception:  # the parser's own errors are of many kinds
        return None
    if not hasattr(found, "free_symbols"):
        return None
    return found.subs({s: sympy.I for s in found.free_symbols if s.name == "i"})


def same(gold: str, answer: str, tolerance: float) -> bool:
    """Whether two expressions are equal for all values of their variables.

    Args:
        gold: normalised.
        answer: normalised.
        tolerance: relative, for numbers; 0 asks for equality to 25 digits.
    """
    left, right = parse(gold), parse(answer)
    if left is None or right is None:
        return False
    try:
        return _same_parsed(left, right, tolerance)
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):
        return False  # sympy cannot tell, so neither can we


def _same_parsed(left: Any, right: Any, tolerance: float) -> bool:
    import sympy

    if isinstance(left, sympy.core.relational.Relational) or isinstance(
        right, sympy.core.relational.Relational
    ):
        return _same_relation(left, right)
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return bool(left == right)
    if {s.name for s in left.free_symbols} != {s.name for s in right.free_symbols}:
        return False
    return _same_values(left, right, tolerance)


def _same_values(left: Any, right: Any, tolerance: float) -> bool:
    """Compare at three points, with so many digits that different expressions do not agree by chance."""
    import sympy

    names = sorted(s.name for s in left.free_symbols)
    for point in _POINTS if names else _POINTS[:1]:
        values = {
            name: sympy.Float(point + i * 0.3819660112501052, _PRECISION) for i, name in enumerate(names)
        }
        a, b = (_value(e, values) for e in (left, right))
        if a is None or b is None:
            return False
        limit = max(abs(a), abs(b), sympy.Float(1e-20)) * max(tolerance, 1e-25)
        if not bool(abs(a - b) <= limit):
            return False
    return True


def _value(expression: Any, values: dict[str, Any]) -> Any:

    number = expression.subs({s: values[s.name] for s in expression.free_symbols}).evalf(_PRECISION, maxn=200)
    return number if number.is_number and number.is_finite else None


def _same_relation(left: Any, right: Any) -> bool:
    """Equations agree if their differences are proportional; inequalities also keep their direction."""
    import sympy

    relational = sympy.core.relational.Relational
    if not (isinstance(left, relational) and isinstance(right, relational)):
        return False
    a, b = left.lhs - left.rhs, right.lhs - right.rhs
    if {s.name for s in a.free_symbols} != {s.name for s in b.free_symbols} or not a.free_symbols:
        return False
    names = {s.name: sympy.Symbol(s.name) for s in a.free_symbols}
    a, b = (e.subs({s: names[s.name] for s in e.free_symbols}) for e in (a, b))
    ratio = sympy.simplify(a / b)
    if not ratio.is_number or not ratio.is_finite or ratio == 0:
        return False
    if isinstance(left, sympy.Eq) and isinstance(right, sympy.Eq):
        return True
    flipped = type(left.reversed) if ratio.is_negative else type(left)
    return bool(isinstance(right, flipped))


def _as_latex(text: str) -> str:
    """Plain notation that the LaTeX parser does not know."""
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|exp)(?![a-zA-Z])", r"\\\1 ", text)
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text.replace("**", "^"))
    return re.sub(r"(?<=\d)\s*\*\s*|\*", r"\\cdot ", text)
