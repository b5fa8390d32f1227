"""Rewrites the LaTeX of an answer in one standard notation."""

from __future__ import annotations

import re
import unicodedata

from ecrl.envs.grading.exclusions import without_points
from ecrl.envs.grading.unit_vectors import as_point

_WRAPPED = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|textnormal|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname|vec|mbox|underline|bf|rm"
    r"|(?:textcolor|color)\s*\{\w+\})\s*\{([^{}]*)\}"
)
_SPACES = re.compile(
    r"\\[,;:! ]|~|"
    r"\\(?:quad|qquad|displaystyle|tiny|small|large|Large|LARGE|huge|Huge|limits|left|right|middle|big|Big|bigg|Bigg|bigl|bigr)(?![a-zA-Z])"
)
_FRACTION_WITHOUT_BRACES = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*([0-9a-zA-Z])")
_FRACTION_HALF_BRACES = re.compile(r"\\frac\s*([0-9])\s*\{")
_FRACTION_TAIL = re.compile(r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])")
_ROOT_WITHOUT_BRACES = re.compile(r"\\sqrt\s*([0-9a-zA-Z])")
_THOUSANDS = re.compile(r"(?<![\d.,(\[{])(?<!\\{)\d{1,3}(?:(?:,|\{,\})\d{3})+(?![\d,])")
_THOUSANDS_TIGHT = re.compile(
    r"(?<!\d)\d{1,3}(?:,\d{3})*+(?:\s*(?:(?:,|\{,\})\s*\\!|\{,\})\s*\d{3}(?:,\d{3}(?!\d))*+)++(?!\d)"
)  # 31,\!104
_THOUSANDS_APART = re.compile(r"(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d./])")
_IDENTICALLY = re.compile(r"(?<![a-zA-Z\\])([fgh])(\([a-z]\))?\s*\\equiv(?![a-zA-Z])")  # f \equiv 0
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree(?![a-zA-Z])|\bdegrees?\b")
_TEMPERATURE = re.compile(r"\bdegrees ([CF])\b")
_DOLLARS = re.compile(r"(?<![\d.])\\\$\s*([\d.,{}]*\d(?:\s*[mb]illion)?)(?:\s*dollars?\b)?")
_CHOOSE = re.compile(r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}")
#: Other ways to write a binomial coefficient, n above k: C(n, k), ^nC_k, _nC_k.
_CHOSEN = re.compile(
    r"(?<![a-zA-Z\\_])C ?\( ?(\w+(?: ?[-+] ?\w+)?) ?, ?(\w+) ?\)"
    r"|(?:\{ ?\} ?)?[\^_] ?(?:\{ ?(\w+) ?\}|(\w)) ?C ?_ ?(?:\{ ?(\w+) ?\}|(\w))"
)
_TIMES = re.compile(r"(?<=\d)\s*x\s*(?=10\s*\^)")
# Without the marks that change the direction of writing, because these change what a reader sees.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RAISED_RUN = re.compile("⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_ROOT = re.compile(r"([√∛])\s*(\d+)")
_OUTWARD = re.compile(r"([(\[\]])([^()\[\]]*,[^()\[\]]*)([)\[\]])")  # ]1, 2[ or [1, 2[
_MARKED = re.compile(r"(\*\*?|[\"'])(.*)\1")
_ALL_BUT = re.compile(r"\\mathbb ?\{?R\}? ?(?:\\setminus|\\backslash|-) ?\\\{([^,{}\\]+)\\\}")
_BRACES = re.compile(r"\{([^{}]*)\}")
_BY_CASES = re.compile(r"\\\{\s*\\begin\{array\}\s*\{[lcr|\s]*\}(.*)\\end\{array\}\s*\.?$", re.DOTALL)
_LABEL = re.compile(r"(?i:the )?(?i:solutions?)(?i: set)? ?(?:(?i:is|are) ?:?|:) ?(?=\S)")
_BRACED_PART = re.compile(r"(\band |\bor |, |= )\{ ?(-?[^{}\\,]+?) ?\}(?=$|[ ,])")
_RATIO_IN_WORDS = re.compile(r"(\d+) to (\d+)")
_UNIT_IN_BRACKETS = re.compile(r"(?<=\d) ?\( ?([a-z]{1,3}) ?\)$")
_ORDINAL = re.compile(r"(\d)\s*(?:\^\s*\{?\s*)?(?:st|nd|rd|th)\b(?:\s*\})?")
_MODULO = re.compile(r"\(?\s*\\?[pb]?mod(?![a-zA-Z])\s*(?:\{\s*(\w+)\s*\}|(\w+))\s*\)?")
_SEGMENT = re.compile(
    r"\\(?:triangle|overline|overrightarrow)\s*(?:\{\s*([A-Z]{2,4})\s*\}|([A-Z]{2,4})(?![a-zA-Z]))"
)
_SYSTEM = re.compile(r"(?:\\\{\s*)?\\begin\{(cases|array|aligned)\}(?:\s*\{l+\})?([^&]*)\\end\{\1\}\s*\.?")
#: Answers that may be written in words or as a symbol.
_MEANINGS = {
    "(-\\infty, \\infty)": re.compile(
        r"(?:[a-z] ?\\in ?)?\\(?:mathbb|mathbf) ?\{?R\}?"
        r"|(?i:(?:all|any|every|the)(?: the)? reals?(?: numbers?)?(?: [a-z])?)"
    ),
    "\\emptyset": re.compile(r"(?i:(?:there (?:is|are) )?no solutions?)"),
    "DNE": re.compile(r"(?i:(?:it )?does not exist)"),
}
_REPLACED = {
    "\\dbinom": "\\binom",
    "\\tbinom": "\\binom",
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
    "<=": "\\le ",
    ">=": "\\ge ",
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
    "≠": "\\ne ",
    "!=": "\\ne ",
    "≈": "\\approx ",
    "\\simeq": "\\approx",
    "⟨": "(",
    "⟩": ")",
    "\\langle": "(",
    "\\rangle": ")",
    "\\(": "",
    "\\)": "",
    "\\[": "",
    "\\]": "",
    "\\infin": "\\infty",
    "\\colon": ":",
    "\\dots": "\\ldots",
    "…": "\\ldots ",
    "\\AA": "Å",
    "\u212b": "Å",
}
_REPLACE = re.compile(
    "|".join(
        re.escape(k) + ("(?![a-zA-Z])" if k[-1].isalpha() and k[0] == "\\" else "")
        for k in sorted(_REPLACED, key=len, reverse=True)
    )
)


def normalise(answer: str) -> str:
    """Rewrite an answer in standard notation: no spacing commands, one name for each symbol, all braces.

    Text in ``\\text{…}`` stays, without the command.
    """
    # First the ends of a matrix's rows, whose double backslashes would look like other commands.
    text = _without_unicode(answer).strip().replace("\\\\", "\\cr ")
    text = _THOUSANDS_TIGHT.sub(lambda m: re.sub(r"\D", "", m.group()), text)
    text = _REPLACE.sub(lambda m: _REPLACED[m.group()], text)
    text = as_point(_SPACES.sub(" ", text))
    for _ in range(3):  # commands may stand within commands
        text = _WRAPPED.sub(r" \1 ", text)
    text = text.replace("{:}", ":")
    text = _IDENTICALLY.sub(lambda m: f"{m.group(1)}{m.group(2) or '(x)'} =", text)
    text = _DEGREES.sub(" degrees ", text)
    text = _DOLLARS.sub(r"\1 dollars", text)
    text = re.sub(r"\\?\$", " ", text)
    text = _MODULO.sub(r" \\pmod{\1\2}", text)
    text = _SEGMENT.sub(r"\1\2", text)
    text = _ORDINAL.sub(r"\1", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = _CHOSEN.sub(_binomial, text)
    text = _FRACTION_WITHOUT_BRACES.sub(r"\\frac{\1}{\2}", text)
    text = _FRACTION_HALF_BRACES.sub(r"\\frac{\1}{", text)
    text = _FRACTION_TAIL.sub(r"\1{\2}", text)
    text = _ROOT_WITHOUT_BRACES.sub(r"\\sqrt{\1}", text)
    text = _THOUSANDS.sub(lambda m: re.sub(r"[{},]", "", m.group()), text)
    text = re.sub(r"\^\s*(-\s*\d+)", r"^{\1}", text)
    text = _TIMES.sub(r" \\times ", text)
    text = _OUTWARD.sub(_inward, text)
    text = re.sub(r"\s+", " ", text).strip()
    text = _THOUSANDS_APART.sub(lambda m: m.group().replace(" ", ""), text)
    text = _TEMPERATURE.sub(lambda m: {"C": "celsius", "F": "fahrenheit"}[m.group(1)], text)
    marked = _MARKED.fullmatch(text)
    text = _without_stop(_without_stop(marked.group(2) if marked else text))
    text = _SYSTEM.sub(_equations, text) if _SYSTEM.fullmatch(text) else text
    text = _BY_CASES.sub(r"\\begin{cases}\1\\end{cases}", text)
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    text = _BRACED_PART.sub(r"\1\2", text)
    text = _RATIO_IN_WORDS.sub(r"\1:\2", text) if _RATIO_IN_WORDS.fullmatch(text) else text
    text = _UNIT_IN_BRACKETS.sub(r" \1", text)
    text = braced.group(1).strip() if (braced := _BRACES.fullmatch(text)) else text
    return without_points(
        next((meaning for meaning, said in _MEANINGS.items() if said.fullmatch(text)), text)
    )


def _without_unicode(text: str) -> str:
    """Write Unicode fractions, exponents and roots in LaTeX, and remove invisible characters."""
    text = _RAISED_RUN.sub(lambda m: f"^{{{m.group().translate(_RAISED)}}}", _INVISIBLE.sub("", text))
    text = _ROOT.sub(lambda m: f"\\sqrt{'[3]' if m.group(1) == '∛' else ''}{{{m.group(2)}}}", text)
    return _VULGAR.sub(_fraction, text)


def _fraction(match: re.Match[str]) -> str:
    above, below = unicodedata.normalize("NFKC", match.group()).split("⁄")
    return f"\\frac{{{above}}}{{{below}}}"


def _binomial(match: re.Match[str]) -> str:
    """Write C(5, 2) as a binomial coefficient; C(2, 5) may be a point."""
    above, below = (part for part in match.groups() if part)
    if above.isdigit() and below.isdigit() and int(above) < int(below):
        return match.group()
    return f"\\binom{{{above}}}{{{below}}}"


def _equations(match: re.Match[str]) -> str:
    """Write a system of equations, one in each row, as a list."""
    rows = [row.strip(" ,;.") for row in match.group(2).split("\\cr")]
    return ", ".join(row for row in rows if row) if all("=" in row for row in rows if row) else match.group()


def _inward(match: re.Match[str]) -> str:
    """Rewrite an interval such as ]1, 2[ with round brackets; leave other intervals as they are."""
    left, inside, right = match.groups()
    if left != "]" and right != "[":
        return match.group()
    return f"{'(' if left == ']' else left}{inside}{')' if right == '[' else right}"


def _without_stop(text: str) -> str:
    """Remove a full stop, comma, semicolon or backslash at the end, but not the dots of an ellipsis."""
    return re.sub(r"(?<!\.)\.$|[,;]+$|(?<!\\)\\$", "", text.strip()).strip()
