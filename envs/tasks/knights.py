"""Knights and knaves: knights tell the truth, knaves lie; who is what?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from string import ascii_uppercase, whitespace
from typing import NamedTuple

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.errors import UsageError

_MAX_RESPONSE = 1 << 16
_MAX_DRAWS = 10_000
_ITEM = re.compile(r"([A-Z])=(knight|knave)")
_SEPARATOR = re.compile(r"[ ,]+")

#: True for a knight, by person.
Kinds = tuple[bool, ...]


class Statement(NamedTuple):
    """What one person says: that all or any of some people are of the named kinds.

    Attributes:
        operator: ``and`` or ``or``; of no matter for one person.
        claims: (person, whether a knight) for each person named.
    """

    operator: str
    claims: tuple[tuple[int, bool], ...]

    def holds(self, kinds: Kinds) -> bool:
        """Whether it is true of ``kinds``."""
        facts = [kinds[person] == knight for person, knight in self.claims]
        return all(facts) if self.operator == "and" else any(facts)

    def __str__(self) -> str:
        claims = (f"{ascii_uppercase[person]} is a {_kind(knight)}" for person, knight in self.claims)
        return f" {self.operator} ".join(claims)


class KnightsEnv(ReasoningEnv):
    """Tell who is a knight (always truthful) and who a knave (always lying).

    Everybody says one sentence, and exactly one answer fits all of them. The prompt asks for
    ``A=knight B=knave``; the last line that is not empty counts: everybody once, in any order, spaces or
    commas between.

    Args:
        people: 2 to 8.
        claims: most people that one sentence speaks of, 2 to 4, and at most ``people``.
        split: ``train`` or ``val``.
    """

    def __init__(self, *, people: int = 3, claims: int = 2, split: Split = "train") -> None:
        super().__init__(split=split)
        check_integer("people", people, 2, 8)
        check_integer("claims", claims, 2, min(people, 4))
        self.people = people
        self.claims = claims

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw who is what and sentences that fit, until they fit nothing else."""
        for _ in range(_MAX_DRAWS):
            kinds = tuple(bool(k) for k in rng.integers(2, size=self.people))
            statements = [self._statement(kinds, knight, rng) for knight in kinds]
            if sum(_liar(statements, other) is None for other in _all_kinds(self.people)) == 1:
                said = " ".join(f"{name}: {s}." for name, s in zip(ascii_uppercase, statements, strict=False))
                form = _answer((True,) * self.people)
                prompt = f"Knights tell the truth, knaves lie. {said} Answer like {form}\n"
                return Problem(prompt, (tuple(statements), kinds), said)
        raise UsageError(f"Knights found no unique puzzle in {_MAX_DRAWS} draws; take more claims.")

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 if everybody's kind is right."""
        _, kinds = problem.answer
        given = _parse(response, self.people)
        if given is None:
            return Score(0.0, {"valid": 0.0})
        return Score(float(given == kinds), {"valid": 1.0}, _answer(given))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Try one answer after the other, naming who contradicts it; the wrong one overlooks somebody."""
        statements, kinds = problem.answer
        order = [other for other in _all_kinds(len(kinds)) if correct or other != kinds]
        last = order.index(kinds) if correct else int(rng.integers(len(order)))
        lines = []
        for tried in order[:last]:
            liar = _liar(statements, tried)
            assert liar is not None, "only one answer fits"
            lines.append(f"{_answer(tried)}: no, {ascii_uppercase[liar]}")
        return "\n".join([*lines, _answer(order[last])])

    def _statement(self, kinds: Kinds, knight: bool, rng: np.random.Generator) -> Statement:
        """Draw a sentence that somebody of this kind can say."""
        while True:
            count = int(rng.integers(1, self.claims + 1))
            people = sorted(rng.choice(self.people, count, replace=False).tolist())
            claims = tuple((person, bool(rng.integers(2))) for person in people)
            statement = Statement(("and", "or")[int(rng.integers(2))], claims)
            if statement.holds(kinds) == knight:
                return statement


def _all_kinds(people: int) -> Iterator[Kinds]:
    return product((True, False), repeat=people)


def _liar(statements: Sequence[Statement], kinds: Kinds) -> int | None:
    """Return the first person whose sentence does not go with ``kinds``, if there is one."""
    for person, statement in enumerate(statements):
        if statement.holds(kinds) != kinds[person]:
            return person
    return None


def _kind(knight: bool) -> str:
    return "knight" if knight else "knave"


def _answer(kinds: Kinds) -> str:
    return " ".join(f"{name}={_kind(knight)}" for name, knight in zip(ascii_uppercase, kinds, strict=False))


def _parse(response: str, people: int) -> Kinds | None:
    """Read the last line: everybody exactly once, or None."""
    if len(response) > _MAX_RESPONSE:
        return None
    last = response.strip(whitespace).rpartition("\n")[2].strip(whitespace)
    items = [_ITEM.fullmatch(item) for item in _SEPARATOR.split(last)]
    given = {item[1]: item[2] == "knight" for item in items if item}
    if len(items) != people or sorted(given) != list(ascii_uppercase[:people]):
        return None
    return tuple(given[name] for name in ascii_uppercase[:people])
