"""Which answers to one problem count as the same vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def vote_classes(
    answers: Sequence[str | None], correct: Sequence[bool], same: Callable[[str, str], bool]
) -> list[int | None]:
    """Sort the answers to a problem into classes of equivalent ones.

    A right and a wrong answer are never in one class, whatever they look like. Each answer is compared with
    one member of each class.

    Args:
        answers: as written; None where none could be extracted.
        correct: whether each answer is right.
        same: whether two answers are equivalent; not called for equal texts.

    Returns:
        The class of each answer, numbered from 0 in order of appearance; None for None.
    """
    members: list[tuple[str, bool]] = []

    def find(answer: str, right: bool) -> int:
        for number, (member, verdict) in enumerate(members):
            if verdict == right and (member == answer or same(member, answer)):
                return number
        members.append((answer, right))
        return len(members) - 1

    pairs = zip(answers, correct, strict=True)
    return [None if answer is None else find(answer, right) for answer, right in pairs]
