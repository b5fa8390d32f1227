"""How often the responses to a problem say the same: a column for rows of rollouts, and a mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

SAME = "same"


def with_same(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add the column ``same`` to all rows of a part.

    It counts the responses to the problem with this row's answer, itself included; where no answer was found,
    those with the same text. Greedy answers are counted apart.
    """
    counts = Counter(map(_said, rows))
    return [{**row, SAME: counts[_said(row)]} for row in rows]


def distinct_answers(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return how many different answers a problem has, mean over the problems of some rows."""
    said = set(map(_said, rows))
    return len(said) / len({(problem, greedy) for problem, greedy, *_ in said})


def _said(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what responses that say the same have in common."""
    answer = row["answer"]
    return row["problem"], row["greedy"], answer is None, row["response"] if answer is None else answer
