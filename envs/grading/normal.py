"""Brings an answer's LaTeX to one way of writing."""

from __future__ import annotations

import re

_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname|mbox|underline|bf|rm"
    r"|(?:textcolor|color)\s*\{\w+\})\s*\{([^{}]*)\}"
)
_SPACES = re.compile(
    r"\\[,;:! ]|~|"
    r"\\(?:quad|qquad|displaystyle|limits|left|right|middle|big|Big|bigg|Bigg|bigl|bigr)(?![a-zA-Z])"
)
_FRACTION_WITHOUT_BRACES = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])")
_FRACTION_HALF_BRACES = re.compile(r"\\frac\s*([0-9])\s*\{")
_FRACTION_TAIL = re.compile(r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])")
_ROOT_WITHOUT_BRACES = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_THOUSANDS = re.compile(r"(?<![\d.,(\[{])(?<!\\{)\d{1,3}(?:(?:,|\{,\})\d{3})+(?![\d,])")
_THOUSANDS_APART = re.compile(r"(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d./])")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z])|\bdegrees?\b")
_TEMPERATURE = re.compile(r"\bdegrees ([CF])\b")
_DOLLARS = re.compile(r"\\\$\s*([\d.,{}]*\d)")
_REALS = re.compile(r"\\(?:mathbb|mathbf) ?\{?R\}?|(?:all|the) reals?(?: numbers?)?")
_REPLACED = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cfrac": "\\frac",
    "\\lbrace": "\\{",
    "\\rbrace": "\\}",
    "\\lparen": "(",
    "\\rparen": ")",
    "\\leqslant": "\\le",
    "\\geqslant": "\\ge",
    "\\leq": "\\le",
    "\\geq": "\\ge",
    "≤": "\\le ",
    "≥": "\\ge ",
    "\\neq": "\\ne",
    "−": "-",
    "–": "-",
    "×": "\\times ",
    "·": "\\cdot ",
    "÷": "/",
    "π": "\\pi ",
    "∞": "\\infty ",
    "√": "\\sqrt ",
    "±": "\\pm ",
    "∪": "\\cup ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "\\varnothing": "\\emptyset",
    "½": "\\frac{1}{2}",
    "²": "^2",
    "³": "^3",
    "\\(": "",
    "\\)": "",
    "\\[": "",
    "\\]": "",
    "\\infin": "\\infty",
}
_REPLACE = re.compile(
    "|".join(
        re.escape(k) + ("(?![a-zA-Z])" if k[-1].isalpha() and k[0] == "\\" else "")
        for k in sorted(_REPLACED, key=len, reverse=True)
    )
)


def normalise(answer: str) -> str:
    """Write an answer the plain way: no spacing commands, one name for each symbol, braces in place.

    Text in ``\\text{…}`` stays, without the command.
    """
    text = answer.strip().replace("\\\\", "\\cr ")  # rows of a matrix, before what follows a backslash counts
    text = _REPLACE.sub(lambda m: _REPLACED[m.group()], text)
    text = _SPACES.sub(" ", text)
    for _ in range(3):  # commands within commands
        text = _WRAPPED.sub(r" \1 ", text)
    text = _DEGREES.sub(" degrees ", text)
    text = _DOLLARS.sub(r"\1 dollars", text)
    text = re.sub(r"\\?\$", "", text)
    text = _FRACTION_WITHOUT_BRACES.sub(r"\\frac{\1}{\2}", text)
    text = _FRACTION_HALF_BRACES.sub(r"\\frac{\1}{", text)
    text = _FRACTION_TAIL.sub(r"\1{\2}", text)
    text = _ROOT_WITHOUT_BRACES.sub(r"\\sqrt{\1}", text)
    text = _THOUSANDS.sub(lambda m: re.sub(r"[{},]", "", m.group()), text)
    text = re.sub(r"\^\s*(-\s*\d+)", r"^{\1}", text)
    text = re.sub(r"\s+", " ", text).strip()
    text = _THOUSANDS_APART.sub(lambda m: m.group().replace(" ", ""), text)
    text = _TEMPERATURE.sub(lambda m: {"C": "celsius", "F": "fahrenheit"}[m.group(1)], text)
    text = "(-\\infty, \\infty)" if _REALS.fullmatch(text) else text
    text = text.rstrip(".;,").strip() if not text.endswith("\\,") else text
    return text.strip("*").strip().removeprefix("+")
