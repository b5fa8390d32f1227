"""Decides whether an answer equals the gold answer, however both are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from ecrl.envs.grading import choices, named_values, parameters, set_builder, symbolic
from ecrl.envs.grading.bases import same_in_base
from ecrl.envs.grading.congruences import same_congruence
from ecrl.envs.grading.dates import same_date, same_time
from ecrl.envs.grading.intervals import as_interval, same_variables
from ecrl.envs.grading.named_values import Named
from ecrl.envs.grading.names import alike, rename_argument
from ecrl.envs.grading.normalisation import normalise
from ecrl.envs.grading.numerals import close, number, ratio, split_percent
from ecrl.envs.grading.plus_minus import both_values, each_value
from ecrl.envs.grading.powers import prime_factors
from ecrl.envs.grading.size import DEEPEST, depth
from ecrl.envs.grading.structure import WORDS, Node, split, structure
from ecrl.envs.grading.units import split_unit
from ecrl.envs.grading.words import is_word, plain_words, squeezed

LONGEST = 2000  # characters of an answer
_MOST_PARTS = 64
_MOST_FAMILIES = 8

_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|lt|gt)(?![a-zA-Z])")
_ALTERNATIVES = re.compile(r"\bor\b")
_APPROXIMATELY = re.compile(r"(?:[a-zA-Z]\s*)?\\approx(?![a-zA-Z])\s*")


def equivalent(gold: str, answer: str, tolerance: float = 1e-6) -> bool:
    """Tell whether an answer equals the gold answer.

    Args:
        gold: the right answer, as written.
        answer: any text at all; a text that is too large to be an answer is wrong.
        tolerance: relative tolerance, used if the gold answer is a decimal number.
    """
    if len(answer) > LONGEST or depth(answer) > DEEPEST:
        return False
    if answer.count("{") != answer.count("}"):  # cut off
        return False
    return _same(normalise(gold), normalise(answer), tolerance)


def _same(gold: str, answer: str, tolerance: float) -> bool:
    gold, answer = gold.strip().removeprefix("+").strip(), answer.strip().removeprefix("+").strip()
    if not answer or not gold:
        return False
    if squeezed(gold) == squeezed(answer):
        return True
    rules = _rules(gold, answer, tolerance)
    if (verdict := next((verdict for verdict in rules if verdict is not None), None)) is not None:
        return verdict
    gold, answer = _result(gold), _result(_exact(answer))
    pair = both_values(gold), both_values(answer)
    if pair != (gold, answer):
        every = each_value(gold), each_value(answer)
        return _same(*pair, tolerance) or (every != (gold, answer) and _same(*every, tolerance))
    left, right = structure(gold), structure(answer)
    if left or right:
        return _same_structure(left, right, gold, answer, tolerance)
    return _same_scalar(gold, answer, tolerance)


def _rules(gold: str, answer: str, tolerance: float) -> Iterator[bool | None]:
    """Yield the verdicts of the rules for special forms, each None if the rule does not apply."""
    yield _same_choice(gold, answer, tolerance)
    yield same_in_base(gold, answer)
    yield same_date(gold, answer)
    yield same_congruence(gold, answer)
    yield _same_described(gold, answer, tolerance)
    yield _same_parametric(gold, answer, tolerance)
    yield _same_approximate(gold, answer, tolerance)
    yield _same_range(gold, answer, tolerance)
    yield _same_named(gold, answer, tolerance)


def _same_choice(gold: str, answer: str, tolerance: float) -> bool | None:
    """Compare the letter of a choice, or its text if the gold answer has one; None if it is no choice."""
    if wanted := choices.letter(gold):
        return choices.chosen(answer) == wanted
    if choice := choices.letter_and_text(gold):
        wanted, text = choice
        return choices.letter(answer) == wanted or _same(
            text, choices.without_letter(answer, wanted), tolerance
        )
    return None


def _same_described(gold: str, answer: str, tolerance: float) -> bool | None:
    """Compare sets of points by their conditions; None if neither answer is one."""
    both = set_builder.conditions(gold, answer)
    return None if both is None else _same(*both, tolerance)


def _same_parametric(gold: str, answer: str, tolerance: float) -> bool | None:
    """Compare answers of which one declares parameters, or both have a constant of integration; else None."""
    if (constant := parameters.same_constant(gold, answer)) is not None:
        return _same(gold, constant, tolerance)
    left, right = parameters.read(gold), parameters.read(answer)
    if (left.text, right.text) == (gold, answer):
        return None
    possible = list(parameters.renamed(left, right))
    if any(_same(left.text, text, tolerance) for text in possible):
        return True
    whole = [name for name, kind in left.kinds.items() if kind == "Z"]
    return len(whole) == 1 and any(_same_progressions(left.text, text, whole[0]) for text in possible)


def _same_progressions(gold: str, answer: str, letter: str) -> bool:
    """Compare lists of a + bk, k any integer: each may begin at another k."""
    left, right = named_values.read(gold), named_values.read(answer)
    if left and right and not alike(left.base, right.base):
        return False
    ours, theirs = (
        split(WORDS.sub(" , ", both_values(named.joined if named and named.of_one else text)), (",",))
        for named, text in ((left, gold), (right, answer))
    )

    def same(one: str, other: str) -> bool:
        return symbolic.same_progression(one, other, letter)

    apart = not any(same(one, other) for one, other in combinations(ours, 2))  # n, n + 1 is a pair of numbers
    return len(ours) == len(theirs) <= _MOST_FAMILIES and apart and _all_matched(ours, theirs, same)


def _same_approximate(gold: str, answer: str, tolerance: float) -> bool | None:
    """Compare with either side of a gold answer such as √2 ≈ 1.414; None for other gold answers."""
    exact, sign, rounded = (side.strip() for side in gold.partition("\\approx"))
    if not sign or number(rounded) is None or named_values.read(gold):
        return None
    return any(_same(side, answer, tolerance) for side in (exact, rounded) if side)


def _same_range(gold: str, answer: str, tolerance: float) -> bool | None:
    """Compare inequalities in one variable as intervals; None if neither is such an inequality."""
    left, right = as_interval(gold), as_interval(answer)
    if left is None and right is None:
        return None
    if _INEQUALITY.search((answer if left else gold) if left is None or right is None else ""):
        return symbolic.same(gold, answer)  # -x > -1 is x < 1
    names = [side[0] for side in (left, right) if side]
    if not same_variables(names[0], names[1] if len(names) > 1 else None):
        return False
    return _same(left[1] if left else gold, right[1] if right else answer, tolerance)


def _same_named(gold: str, answer: str, tolerance: float) -> bool | None:
    """Compare answers that name their values, such as x = 3; None if neither does."""
    left, right = named_values.read(gold), named_values.read(answer)
    if left and right:
        return _same_both_named(left, right, tolerance)
    if left is None and right is None and number(gold) is not None:
        right = named_values.read_combined(answer)
    named, other = left or right, answer if left else gold
    if named is None:
        return None
    if not named_values.is_value(other):  # an equation that is not solved
        return len(named.names) == 1 and symbolic.same(gold, answer)
    if named.of_one:
        return _same(*_in_order(left, named.joined, other), tolerance)
    node = structure(other)
    if node is None or node.kind not in ("tuple", "list") or len(node.parts) != len(named.values):
        return False
    orders = [named.in_order] + [named.values] * (left is not None and not named.of_coordinates)
    return any(
        all(
            _same(*_in_order(left, value, part), tolerance)
            for value, part in zip(order, node.parts, strict=True)
        )
        for order in orders
    )


def _in_order(left: Named | None, named: str, other: str) -> tuple[str, str]:
    return (named, other) if left else (other, named)


def _same_both_named(left: Named, right: Named, tolerance: float) -> bool:
    if left.of_one and right.of_one and not (left.indexed and right.indexed):
        if (renamed := rename_argument(left.base, right.base, right.joined)) is not None:
            return _same(left.joined, renamed, tolerance)
        return alike(left.base, right.base) and _same(left.joined, right.joined, tolerance)
    ours, theirs = (dict(zip(n.names, n.values, strict=True)) for n in (left, right))
    if ours.keys() != theirs.keys() or not len(ours) == len(left.names) == len(right.names):
        return False
    return all(_same(ours[name], theirs[name], tolerance) for name in ours)


def _same_structure(left: Node | None, right: Node | None, gold: str, answer: str, tolerance: float) -> bool:
    """Compare part by part; a set equals a plain list of its elements."""
    if left and right is None and _gives_twice(left, gold, tolerance):
        return _same(left.parts[0], answer, tolerance)
    left = left or Node("list", (gold,))
    right = right or Node("list", (answer,))
    kinds = {left.kind, right.kind}
    if len(left.parts) != len(right.parts) or len(left.parts) > _MOST_PARTS:
        return False
    if kinds <= {"set", "list"} or kinds in ({"union"}, {"cases"}):
        return _same_in_any_order(left.parts, right.parts, tolerance)
    if kinds == {"matrix", "tuple"}:  # a vector, as a column or in brackets
        left, right = left.as_point, right.as_point
        kinds = {left.kind, right.kind}
    if len(kinds) > 1 or left.border != right.border:
        return False
    return all(_same_part(g, a, tolerance) for g, a in zip(left.parts, right.parts, strict=True))


def _gives_twice(node: Node, gold: str, tolerance: float) -> bool:
    """Tell whether a gold answer gives its value twice, such as 7/2 or 3.5."""
    return _ALTERNATIVES.search(gold) is not None and len(node.parts) == 2 and _same(*node.parts, tolerance)


def _same_in_any_order(gold: tuple[str, ...], answer: tuple[str, ...], tolerance: float) -> bool:
    return _all_matched(gold, answer, lambda part, other: _same_part(part, other, tolerance))


def _all_matched(gold: Sequence[str], answer: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    """Tell whether each part of the gold answer equals a part of its own of the answer."""
    rest = list(answer)
    for part in gold:
        found = next((i for i, other in enumerate(rest) if same(part, other)), None)
        if found is None:
            return False
        rest.pop(found)
    return True


def _same_part(gold: str, answer: str, tolerance: float) -> bool:
    """Compare elements. Other than with whole answers, an element {1} does not equal 1."""
    return (structure(gold) is None) == (structure(answer) is None) and _same(gold, answer, tolerance)


def _same_scalar(gold: str, answer: str, tolerance: float) -> bool:
    if (verdict := same_time(gold, answer)) is not None:
        return verdict
    if gold.count(":") > 1 or answer.count(":") > 1:
        return ratio(gold) is not None and ratio(gold) == ratio(answer)
    plain = split_percent(gold), split_percent(answer)
    if plain[0][1] or plain[1][1]:
        return _same_percent(*plain[0], *plain[1], tolerance)
    if number(gold) is not None:
        answer = _APPROXIMATELY.sub("", answer, count=1) if _APPROXIMATELY.match(answer) else answer
    (gold, unit), (answer, other_unit) = split_unit(gold), split_unit(answer)
    if unit and other_unit and unit != other_unit:
        return False
    a, b = number(gold), number(answer)
    if a is not None and b is not None:
        return close(a, b, tolerance if "." in gold else 0.0)
    if (factors := prime_factors(gold)) is not None and (others := prime_factors(answer)) is not None:
        return factors == others
    if is_word(gold) or is_word(answer):
        return plain_words(gold) == plain_words(answer)
    return symbolic.same(gold, answer)


def _same_percent(gold: str, gold_has: bool, answer: str, answer_has: bool, tolerance: float) -> bool:
    """50 % equals 50 % and 0.5. A bare number above 1 (50) may lack its sign; a bare 0.5 is a share."""
    if "%" in gold + answer:
        return False  # %%
    if gold_has == answer_has:
        return _same_scalar(gold, answer, tolerance)
    a, b = number(gold), number(answer)
    if a is None or b is None:
        return False
    tolerance = tolerance if "." in gold else 0.0
    bare = b if gold_has else a
    as_shares = (a / 100, b) if gold_has else (a, b / 100)
    return close(*as_shares, tolerance) or (abs(bare) > 1 and close(a, b, tolerance))


def _result(text: str) -> str:
    """Return the last side of a computation that is true, such as 7 of 3 + 4 = 7."""
    *sides, last = text.split("=")
    if not sides or re.search(r"[a-hj-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", text)):
        return text
    holds = all(side.strip() and _same_scalar(last.strip(), side.strip(), 0.0) for side in sides)
    return last.strip() if holds else text


def _exact(text: str) -> str:
    """Return the exact side of an approximation, such as π/2 of π/2 ≈ 1.57."""
    before, _, after = text.partition("\\approx")
    return before.strip() if re.search(r"[\\/]", before) and number(after) is not None else text
