"""Compares congruences by their residues: 1, 4 (mod 5) is ±1 (mod 5), and x ≡ 3 (mod 7) is x = 7k + 3."""

from __future__ import annotations

import re

from ecrl.envs.grading import parameters
from ecrl.envs.grading.numerals import number
from ecrl.envs.grading.plus_minus import both_values
from ecrl.envs.grading.structure import WORDS, split

_LONGEST = 300  # characters
_MODULO = re.compile(r"\\pmod\{(\d{1,9})\}")
_CLAUSE = re.compile(r"(?:[\s,;]|or\b|and\b)*(?:([^=\\,]{1,20}?)\s*(?:\\equiv|=))?([^=]*)")
_LINEAR = re.compile(
    r"([a-zA-Z])\s*=\s*(?:(\d{1,9})\s*[a-z](?:\s*([-+]\s*\d{1,9}))?|(-?\d{1,9})\s*\+\s*(\d{1,9})\s*[a-z])"
)

_Residues = tuple[str, int, frozenset[int]]  # name or nothing, modulus, residues below it


def same_congruence(gold: str, answer: str) -> bool | None:
    """Compare congruences; None if neither answer is one.

    For a gold answer without a name, such as 3 (mod 7), its residue alone is enough, as written.
    """
    if "\\pmod" not in gold + answer or max(len(gold), len(answer)) > _LONGEST:
        return None
    ours, theirs = _congruence(gold) or _linear(gold), _congruence(answer) or _linear(answer)
    if ours and theirs:
        return ours[0] in ("", theirs[0]) and ours[1:] == theirs[1:]
    if ours is None:
        return None if theirs is None else False
    residue = number(_MODULO.split(gold)[0])
    return residue is not None and residue == number(answer)


def _congruence(text: str) -> _Residues | None:
    """Read a congruence, or several of the same modulus."""
    *pieces, rest = _MODULO.split(text)
    clauses = [_CLAUSE.fullmatch(piece) for piece in pieces[::2]]
    names = {(clause[1] or "").strip() for clause in clauses if clause}
    listed = ", ".join(clause[2] for clause in clauses if clause)
    values = [number(part) for part in split(both_values(WORDS.sub(" , ", listed)), (",",))]
    if rest.strip() or None in clauses or len(names) != 1 or len(set(pieces[1::2])) != 1:
        return None
    whole = [int(value) for value in values if value is not None and value.denominator == 1]
    modulus = int(pieces[1])
    if modulus == 0 or len(whole) != len(values):
        return None
    return names.pop(), modulus, frozenset(value % modulus for value in whole)


def _linear(text: str) -> _Residues | None:
    """Read x = 7k + 3 or x = 3 + 7k."""
    match = _LINEAR.fullmatch(parameters.read(text).text)
    if match is None:
        return None
    name, step, rest, first, then = match.groups()
    modulus, value = int(step or then), int((rest or first or "0").replace(" ", ""))
    return (name, modulus, frozenset({value % modulus})) if modulus else None
