"""Compares two expressions with sympy, through math-verify's LaTeX parser, which never evaluates code."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

from ecrl.envs.grading.numerals import number
from ecrl.envs.grading.size import LINEAR, comparable

_POWER_OF_FACTORIAL = re.compile(r"([a-z]|\d+)\s*!\s*\^")
_BINOMIAL_OF_LETTERS = re.compile(rf"\\binom\s*\{{\s*({LINEAR})\s*\}}\s*\{{\s*(\d{{1,2}}|\d?[a-z])\s*\}}")
# What the parser silently ignores, or joins.
_DROPPED = re.compile(
    r"['\"?…]|\\l?dots|\.\.|\\(?:prime|not|approx|[hv]?phantom)(?![a-zA-Z])|\^\s*(?:T|\{\s*T\s*\})"
    r"|(?<![_{\d])\d+\s+\.?\d|(?:\d|\\(?:sin|cos|tan|ln|exp))\s*_"
)
# What can be read in two ways: x2 (an index?), 1/2x (is x in the denominator?), f(x+1) (a factor?), f^{-1}.
_AMBIGUOUS = re.compile(
    r"(?<![\\a-zA-Z])[fgh]\s*\^\s*\{?\s*-1|(?<![\\a-zA-Z_{])[a-zA-Z]\d|(?<![\\a-zA-Z])f\s*\((?!\s*\w+\s*\))"
    r"|/\s*\d+\s*(?:[a-zA-Z(]|\\(?!(?:cdot|times|rfloor|rceil)(?![a-zA-Z])))"
)
_IMAGINARY_BESIDE = re.compile(r"(/\s*\d+)\s+i(?![a-zA-Z])")
_DERIVATIVE = re.compile(
    r"\{\s*d\s*(?:\^\s*\{?\d\}?)?\s*[a-z]?\s*\}\s*\{\s*d\s*[a-z]\s*(?:\^\s*\{?\d\}?)?\s*\}|d\s*[a-z]\s*/\s*d\s*[a-z]"
)
# Letters that the parser takes for a number or a differential, or ignores.
_LETTERS = {"I": "\\mathcal{I}", "\\gamma": "\\mathcal{g}", "d": "\\mathcal{d}"}
_LETTER = re.compile(r"\\[a-zA-Z]+|_\s*(?:\w|\{[^{}]*\})|I|d")
_LETTER_OF_DERIVATIVE = re.compile(r"\\[a-zA-Z]+|I")
_RAISED = r"(?:\s*\^\s*\{?\s*-1\s*\}?)?"
_PRODUCT = re.compile(rf"(?<!\\)(?<!_)(?<!_\{{)[A-Z]{_RAISED}(?:\s*(?:\\cdot\s*)?[A-Z]{_RAISED})+")
_ONLY_FRACTION = re.compile(r"^\{(\\frac\{\d+\}\{\d+\})\}$")  # in braces it would be read as a set
_BINOMIAL = re.compile(r"\\binom\s*\{\s*(\d{1,2})\s*\}\s*\{\s*(\d{1,2})\s*\}")
# Digits. The largest power that is allowed has fewer, so it cannot hide a difference.
_PRECISION = 350
_CLOSE = 1e-300
_POINTS = (0.7390851332151607, 1.6180339887498949, 2.2955871493926380)
_STEP = 0.4142135623730951  # from one variable to the next; no sum with a point is an integer
_STEP_POINTS = 80
_COUNTS = "ijklmn"  # letters of integers
_SIGNS = ((-1, -1), (1, -1), (-1, 1))  # signs of the variables, which alternate


@lru_cache(maxsize=4096)
def parse(text: str) -> Any:
    """Parse LaTeX or plain notation into a sympy expression; None if it is ambiguous, too large or wrong."""
    text = _BINOMIAL.sub(lambda m: str(math.comb(int(m.group(1)), int(m.group(2)))), text)
    text = _BINOMIAL_OF_LETTERS.sub(r"\\frac{(\1)!}{\2!(\1-\2)!}", text)
    text = _POWER_OF_FACTORIAL.sub(r"(\1!)^", text)
    text = _IMAGINARY_BESIDE.sub(r"\1 \\cdot i", text)
    if _DROPPED.search(text) or _AMBIGUOUS.search(text) or not comparable(text):
        return None
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    try:
        found = latex2sympy(_as_latex(text), conversion_config=ConversionConfig(lowercase_symbols=False))
        if not hasattr(found, "free_symbols"):
            return None
        return found.subs({s: sympy.I for s in found.free_symbols if s.name == "i"})
    except Exception:  # the parser raises errors of many kinds
        return None


def real_value(text: str) -> float | None:
    """Return the value of a real number, to put several in order; None for other texts."""
    if (rational := number(text)) is not None:
        return float(rational)
    found = parse(text)
    if found is None or getattr(found, "free_symbols", True) or not getattr(found, "is_real", False):
        return None
    return float(found.evalf(30))


def same(gold: str, answer: str) -> bool:
    """Tell whether two expressions are equal, to 300 digits, for all values of their variables.

    Args:
        gold: the right answer, normalised.
        answer: the given answer, normalised.
    """
    left, right = parse(gold), parse(answer)
    if left is None or right is None or not _same_orders(gold, answer):
        return False
    try:
        return _same_parsed(left, right)
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):
        return False  # sympy cannot compare them


def same_progression(gold: str, answer: str, letter: str) -> bool:
    """Tell whether a + bk and c + dk are the same numbers if k, the letter, is any integer."""
    left, right = parse(gold), parse(answer)
    if left is None or right is None:
        return False
    import sympy

    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return False
    k = sympy.Symbol(letter)
    left, right = (e.subs({s: k for s in e.free_symbols if s.name == letter}) for e in (left, right))
    step, other = left.diff(k), right.diff(k)
    if step == 0 or step.has(k) or other.has(k) or sympy.simplify(step**2 - other**2) != 0:
        return False
    return bool(sympy.simplify((left - right).subs(k, 0) / step).is_integer)


def _same_parsed(left: Any, right: Any) -> bool:
    import sympy

    if isinstance(left, sympy.core.relational.Relational) or isinstance(
        right, sympy.core.relational.Relational
    ):
        return _same_relation(left, right)
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return bool(left == right)
    if {s.name for s in left.free_symbols} != {s.name for s in right.free_symbols}:
        return False
    return _same_values(left, right)


def _same_orders(gold: str, answer: str) -> bool:
    """Tell whether the products of capital letters, which may be matrices, are in the same order."""
    ours, theirs = (
        {re.sub(r"\\cdot|[\s{}]", "", run) for run in _PRODUCT.findall(text)} for text in (gold, answer)
    )
    return not any(
        sorted(one) == sorted(other) and one != other for one in ours ^ theirs for other in ours | theirs
    )


def _same_values(left: Any, right: Any) -> bool:
    """Compare at a few points, with so many digits that different expressions do not agree by chance.

    With positive variables, both must have a value. With other signs, only real values are compared: ln x²
    equals 2 ln x, but |x| does not equal x. If only one has an absolute value, both must be real for the same
    signs: ln |x| is not ln x.
    """
    if left.is_Rational and right.is_Rational:
        return bool(left == right)
    import sympy

    names = sorted(s.name for s in left.free_symbols)
    points = _positive(names, left, right)
    if _hides(left, points[0]) or not all(_agree(left, right, point) for point in points):
        return False
    same_domain = left.has(sympy.Abs) != right.has(sympy.Abs)
    counts = _has_steps(left, right) and any(name in _COUNTS for name in names)
    for signs in _SIGNS if names and not counts else ():
        point = _at(names, _POINTS[1], signs)
        reals = _is_real(left, point), _is_real(right, point)
        if (all(reals) and not _agree(left, right, point)) or (same_domain and any(reals) != all(reals)):
            return False
    return True


def _positive(names: list[str], left: Any, right: Any) -> list[dict[str, Any]]:
    """Return the points with positive variables at which two expressions are compared.

    Functions with steps are constant between them, so they need more points, and integers for counts (n, k).
    """
    import sympy

    if not names or not _has_steps(left, right):
        return [_at(names, point, (1, 1)) for point in _POINTS[: 3 if names else 1]]
    return [
        {
            name: sympy.Integer(k + 3 * i) if name in _COUNTS else sympy.Float(k * _POINTS[0] + i * _STEP, 50)
            for i, name in enumerate(names)
        }
        for k in range(1, _STEP_POINTS)
    ]


def _has_steps(*expressions: Any) -> bool:
    import sympy

    return any(expression.has(sympy.floor, sympy.ceiling) for expression in expressions)


def _at(names: list[str], point: float, signs: tuple[int, int]) -> dict[str, Any]:
    import sympy

    return {name: signs[i % 2] * sympy.Float(point + i * _STEP, _PRECISION) for i, name in enumerate(names)}


def _agree(left: Any, right: Any, point: dict[str, Any]) -> bool:
    import sympy

    a, b = _value(left, point), _value(right, point)
    if a is None or b is None:
        return False
    limit = max(abs(a), abs(b), sympy.Float("1e-20")) * sympy.Float(_CLOSE)
    return bool(abs(a - b) <= limit)


def _hides(expression: Any, point: dict[str, Any]) -> bool:
    """Tell whether a value has more digits than are compared, so that a difference would not show."""
    value = _value(expression, point)
    return value is None or bool(abs(value) * _CLOSE > 1)


def _is_real(expression: Any, point: dict[str, Any]) -> bool:
    value = _value(expression, point)
    return value is not None and bool(value.is_real)


def _value(expression: Any, values: dict[str, Any]) -> Any:
    number = expression.subs({s: values[s.name] for s in expression.free_symbols}).evalf(
        _PRECISION, maxn=1000
    )
    return number if number.is_number and number.is_finite else None


def _same_relation(left: Any, right: Any) -> bool:
    """Equations are equal if their differences are proportional; inequalities also need equal directions."""
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
    """Rewrite notation that the LaTeX parser does not know, and decimals, which it would not read exactly."""
    text = re.sub(r"(\d+(?:\.\d+)?)\s*degrees", r"(\\frac{\\pi \\cdot \1}{180})", text)
    text = re.sub(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<![\\a-zA-Z])(pi|sin|cos|tan|log|ln|exp)(?![a-zA-Z])", r"\\\1 ", text)
    letter = _LETTER_OF_DERIVATIVE if _DERIVATIVE.search(text) else _LETTER
    text = letter.sub(lambda m: _LETTERS.get(m.group(), m.group()), text)
    text = re.sub(r"\\log_\{?e\}?(?![a-zA-Z])", r"\\ln ", re.sub(r"\\lg(?![a-zA-Z])", r"\\log_{10} ", text))
    text = re.sub(r"\^\s*\(([^()]*)\)", r"^{\1}", text.replace("**", "^"))
    text = re.sub(r"(?<=\d)\s*\*\s*|\*", r"\\cdot ", text)
    # Take the real root of a negative number, not the principal one.
    text = re.sub(r"\\sqrt\s*\[\s*(\d?[13579])\s*\]\s*\{\s*-([^{}+-]*)\}", r"(-\\sqrt[\1]{\2})", text)
    return _ONLY_FRACTION.sub(r"\1", re.sub(r"(\d*)\.(\d+)", _as_fraction, text))


def _as_fraction(decimal: re.Match[str]) -> str:
    whole, rest = decimal.groups()
    return f"{{\\frac{{{whole + rest}}}{{1{'0' * len(rest)}}}}}"
