"""Reads the parameters of an answer, whose names are free: k of ``k\\pi, k \\in \\mathbb{Z}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

_LONGEST = 100  # characters of a clause
_MOST = 3  # parameters of an answer
_FILLING = r"where|for|with|and|is|are|being|an?(?= [a-z]{2})|the|any|all|every|each|some|arbitrary|fixed"
_KINDS = r"integers?|constants?|reals?|numbers?|positive|negative|non-?negative|non-?zero|natural|rational"
_WORDS = rf"(?:\b(?:{_FILLING}|{_KINDS})\b[\s,]*)*"
_LETTER = r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z'(_])"
_CLAUSE = re.compile(
    rf"(?:^|[\s,;(])[\s,;(]*(?P<before>{_WORDS})"
    rf"(?P<letters>{_LETTER}(?:\s*(?:,|\band\b)\s*{_LETTER}){{0,{_MOST - 1}}})\s*"
    rf"(?:\\in\s*\\mathbb\s*\{{?\s*(?P<set>[NZQRC])\s*\}}?\s*(?P<sign>\^\s*\{{?\s*[+*]\s*\}}?)?|(?P<after>{_WORDS}))"
    r"[\s).]*$"
)
#: Between two functions: f(x) = 0 for all x, and f(x) = x for all x.
_IN_BETWEEN = re.compile(
    r",? for (?:all|any|every) (?:(?:reals?|integers?|numbers?) )*([a-z])(?: ?\\in ?\\mathbb ?\{?[A-Z]\}?)?"
    r"(?=,? (?:and|or) )"
)
_DECLARES = re.compile(rf"\b(?:any|all|every|each|arbitrary|{_KINDS})\b")
_BUILT = re.compile(r"\\\{(.*?)(?:\\mid(?![a-zA-Z])|[:|])(.*)\\\}")  # {k\pi : k \in Z}
_SYMBOL = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]{3,}|\b(?:or|ln)\b|[a-zA-Z]")
_INTEGERS = "klmn"  # letters that need no clause, if the gold answer has one
_CONSTANT = re.compile(r"(?<![a-zA-Z\\_])\+\s*(?:([CcKk])(?:_\{?\d\}?)?|const(?:ant)?)$")
_SEVERAL = re.compile(r"(?<![a-zA-Z\\])c_(?=\{?\d)")
_INTEGRAND = re.compile(r"(?<![a-zA-Z\\])[xtuyzsr](?![a-zA-Z])|\\theta|\|[xtuyzsr]\|")


@dataclass(frozen=True)
class Parametric:
    """An answer and its parameters.

    Attributes:
        text: the answer without the clauses that declare parameters.
        kinds: for each parameter the numbers that it stands for; empty if the answer does not say which.
    """

    text: str
    kinds: dict[str, str]

    @property
    def letters(self) -> set[str]:
        """The single letters of the answer."""
        return _letters(self.text)


def read(text: str) -> Parametric:
    """Return an answer without its clauses, such as *for any constant c*, and what they declare."""
    if (built := _BUILT.fullmatch(text)) and next(_clauses(f"{built.group(1)}, {built.group(2)}"), None):
        name, rule = built.group(1).strip(), built.group(2).strip()
        text = rule if re.match(rf"{re.escape(name)}\s*=", rule) else f"{name}, {rule}"
    kinds: dict[str, str] = {}
    text = _IN_BETWEEN.sub(lambda m: "" if f"({m.group(1)})" in text else m.group(), text)
    while found := next(_clauses(text), None):
        text, declared = found
        kinds = declared | kinds
    return Parametric(text, kinds)


def _clauses(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the text before a clause at its end, and what the clause declares: letters of the text before."""
    begin = max(0, len(text) - _LONGEST)
    while match := _CLAUSE.search(text, begin):
        begin = match.start() + 1
        before = text[: match.start()].rstrip(" ,;")
        letters = re.findall(_LETTER, re.sub(r"\band\b", ",", match["letters"]))
        words = match["before"] + (match["after"] or "")
        if (match["set"] or _DECLARES.search(words)) and set(letters) <= _letters(before):
            yield before, dict.fromkeys(letters, _kind(match))


def _letters(text: str) -> set[str]:
    return {found for found in _SYMBOL.findall(text) if len(found) == 1}


def _kind(match: re.Match[str]) -> str:
    words = set(re.findall(_KINDS, match["before"] + " " + (match["after"] or "")))
    named = match["set"] or ("Z" if any(w.startswith("integer") for w in words) else "R" if words else "")
    signs = {w.replace("-", "") for w in words if re.match("pos|neg|non|nat|rat", w)}
    if match["sign"]:
        signs.add("positive" if "+" in match["sign"] else "nonzero")
    return " ".join([named, *sorted(signs)])


def renamed(gold: Parametric, answer: Parametric) -> Iterator[str]:
    """Yield the answer with the gold answer's names for its parameters, in each way that is possible."""
    ours, theirs = dict(gold.kinds), dict(answer.kinds)
    if not theirs and len(ours) == 1 and list(ours.values()) == ["Z"] and not set(ours) & answer.letters:
        theirs = dict.fromkeys(answer.letters & set(_INTEGERS) - gold.letters, "Z")
    if not ours and list(theirs.values()) == ["R"] and gold.letters - answer.letters == {"C"}:
        ours = {"C": "R"}  # the usual name of a constant that the gold answer does not declare
    if len(ours) != len(theirs) or len(ours) > _MOST:
        if _restricts(gold, theirs) or _restricts(answer, ours):
            return
        yield answer.text
        return
    for names in permutations(ours):
        new = dict(zip(theirs, names, strict=True))
        free = answer.letters - set(theirs)
        if free & set(names) or not all(_alike(ours[new[name]], theirs[name]) for name in theirs):
            continue
        yield _rename(answer.text, new)


def _rename(text: str, new: dict[str, str]) -> str:
    return _SYMBOL.sub(lambda m: new.get(m.group(), m.group()), text)


def _alike(one: str, other: str) -> bool:
    return one == other or (not one and other in "ZR") or (not other and one in "ZR")


def _restricts(one: Parametric, others: dict[str, str]) -> bool:
    """Tell whether a parameter that the other answer does not declare is restricted, as to k > 0."""
    return any(
        kind not in ("", "Z", "R") and name not in others and not re.search(rf"[a-zA-Z]\({name}\)", one.text)
        for name, kind in one.kinds.items()
    )


def same_constant(gold: str, answer: str) -> str | None:
    """Return an answer with the gold answer's names of its constants of integration: + c, c_1; else None."""
    if re.search(r"C_\{?\d", gold) and "C" not in answer and "c_" not in gold:
        return _SEVERAL.sub("C_", answer) if _SEVERAL.search(answer) else None
    ours, theirs = _CONSTANT.search(gold), _CONSTANT.search(answer)
    if ours is None or theirs is None or ours.group() == theirs.group() or ours.group(1) != "C":
        return None
    rest, other = gold[: ours.start()], answer[: theirs.start()]
    letters = set(_SYMBOL.findall(rest)) | set(_SYMBOL.findall(other))
    if not _INTEGRAND.search(rest) or letters & {"c", "k"} or any(re.fullmatch("[A-Z]", s) for s in letters):
        return None
    return other + ours.group()
