"""Knights and knaves: knights tell the truth, knaves lie; tell who is which."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from string import ascii_uppercase, whitespace
from typing import NamedTuple

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer
from ecrl.errors import UsageError

_MAX_RESPONSE = 1 << 16
_MAX_DRAWS = 10_000
_ITEM = re.compile(r"([A-Z])=(knight|knave)")
_SEPARATOR = re.compile(r"[ ,]+")

#: For each person, whether it is a knight.
Kinds = tuple[bool, ...]


class Statement(NamedTuple):
    """What one person says: all of the claims are true (``and``), or at least one is (``or``).

    Attributes:
        operator: ``and`` or ``or``; without meaning for a single claim.
        claims: (person, whether it is a knight) for each person named.
    """

    operator: str
    claims: tuple[tuple[int, bool], ...]

    def holds(self, kinds: Kinds) -> bool:
        """Tell whether the statement is true if the people are of these kinds."""
        facts = [kinds[person] == knight for person, knight in self.claims]
        return all(facts) if self.operator == "and" else any(facts)

    def __str__(self) -> str:
        claims = (f"{ascii_uppercase[person]} is a {_kind(knight)}" for person, knight in self.claims)
        return f" {self.operator} ".join(claims)


class KnightsEnv(ReasoningEnv):
    """Tell who is a knight (always tells the truth) and who is a knave (always lies).

    Everybody says one sentence, and exactly one answer fits all sentences. The prompt asks for
    ``A=knight B=knave``. The last line of a response that is not empty counts; it must name everybody once,
    in any order, separated by spaces or commas.

    Args:
        people: number of people, 2 to 8.
        claims: most people that one sentence names, 2 to 4, and at most ``people``.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(self, *, people: int = 3, claims: int = 2, split: Split = "train") -> None:
        super().__init__(split=split)
        check_integer("people", people, 2, 8)
        check_integer("claims", claims, 2, min(people, 4))
        self.people = people
        self.claims = claims

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw kinds and sentences that fit them, until the sentences fit no other kinds.

        Raises:
            UsageError: no such sentences were found.
        """
        for _ in range(_MAX_DRAWS):
            kinds = tuple(bool(k) for k in rng.integers(2, size=self.people))
            statements = [self._statement(kinds, knight, rng) for knight in kinds]
            if sum(_liar(statements, other) is None for other in _all_kinds(self.people)) == 1:
                said = " ".join(f"{name}: {s}." for name, s in zip(ascii_uppercase, statements, strict=False))
                form = _answer((True,) * self.people)
                rules = f"Knights tell the truth, knaves lie. {said}"
                messages = ask(f"{rules} Who is a knight, who is a knave?", f"an answer such as {form}")
                return Problem(f"{rules} Answer like {form}\n", (tuple(statements), kinds), said, messages)
        raise UsageError(
            f"Knights found no puzzle with one solution in {_MAX_DRAWS} draws; take more claims."
        )

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 if the kinds of all people are right."""
        _, kinds = problem.answer
        given = _parse(final_answer(response), self.people)
        if given is None:
            return Score(0.0, {"valid": 0.0})
        return Score(float(given == kinds), {"valid": 1.0}, _answer(given))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Try the answers in turn and name who contradicts each; a wrong solution accepts a wrong one."""
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
        """Draw a sentence that a person of this kind can say."""
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
    """Return the first person whose sentence contradicts ``kinds``, or None."""
    for person, statement in enumerate(statements):
        if statement.holds(kinds) != kinds[person]:
            return person
    return None


def _kind(knight: bool) -> str:
    return "knight" if knight else "knave"


def _answer(kinds: Kinds) -> str:
    return " ".join(f"{name}={_kind(knight)}" for name, knight in zip(ascii_uppercase, kinds, strict=False))


def _parse(response: str, people: int) -> Kinds | None:
    """Read the last line; None if it does not name everybody exactly once."""
    if len(response) > _MAX_RESPONSE:
        return None
    last = response.strip(whitespace).rpartition("\n")[2].strip(whitespace)
    items = [_ITEM.fullmatch(item) for item in _SEPARATOR.split(last)]
    given = {item[1]: item[2] == "knight" for item in items if item}
    if len(items) != people or sorted(given) != list(ascii_uppercase[:people]):
        return None
    return tuple(given[name] for name in ascii_uppercase[:people])
