"""Token populations: shares, draws, slices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support.tokens import make_tokens


def population(count: int = 1000, key: int = 0):  # type: ignore[no-untyped-def]
    sequences = [i // 10 for i in range(count)]
    return make_tokens([0.0] * count, [0.0] * count, sequences=sequences, key=key)


def test_top_fraction_takes_the_largest() -> None:
    tokens = make_tokens([0.0] * 5, [0.0] * 5)
    x = torch.tensor([3.0, 1.0, 9.0, 2.0, 5.0])
    assert tokens.top_fraction(x, 0.4).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (1e-9, 1), (0.29, 290), (2e-3, 2), (1.0, 1000)])
def test_shares_are_floors_of_the_whole_and_at_least_one(fraction: float, count: int) -> None:
    tokens = population()
    assert int(tokens.top_fraction(torch.arange(1000.0), fraction).sum()) == count
    assert int(tokens.sample(torch.ones(1000, dtype=torch.bool), fraction).sum()) == count


def test_sample_takes_all_candidates_when_there_are_too_few() -> None:
    tokens = population()
    candidates = torch.zeros(1000, dtype=torch.bool)
    candidates[[3, 500]] = True
    assert torch.equal(tokens.sample(candidates, 0.5), candidates)


def test_choice_does_not_depend_on_order() -> None:
    tokens = population()
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    # Shuffled tokens keep identity and position; sequence numbering does not enter the choice.
    shuffled = replace(tokens, uid=tokens.uid[order], positions=tokens.positions[order])
    everyone = torch.ones(1000, dtype=torch.bool)
    assert torch.equal(shuffled.sample(everyone, 0.05), tokens.sample(everyone, 0.05)[order])
    ties = torch.zeros(1000)
    assert torch.equal(shuffled.top_fraction(ties, 0.05), tokens.top_fraction(ties, 0.05)[order])


def test_rounding_does_not_break_a_tie() -> None:
    """Twins differ by rounding, which another partition turns round; the number chosen stays exact."""
    tokens = population(100)
    x = torch.arange(100.0) // 10
    noise = 1e-5 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    one, other = tokens.top_fraction(x + noise, 0.25), tokens.top_fraction(x - noise, 0.25)
    assert torch.equal(one, other) and one.sum() == 25
    assert one[x > 7].all() and not one[x < 7].any() and one[x == 7].sum() == 5


def test_choice_is_uniform_and_changes_with_the_key() -> None:
    everyone = torch.ones(200, dtype=torch.bool)
    counts = sum(population(200, key).sample(everyone, 0.1).long() for key in range(500))
    # Binomial(500, 0.1): mean 50, standard deviation 6.7; 5 of them either side.
    assert int(counts.min()) > 50 - 34 and int(counts.max()) < 50 + 34


def test_per_sequence_helpers() -> None:
    tokens = make_tokens([0.0] * 3, [0.0] * 3, sequences=[0, 0, 1])
    x = torch.tensor([1.0, 2.0, 5.0])
    assert tokens.per_sequence_sum(x).tolist() == [3.0, 5.0]
    assert tokens.per_sequence_mean(x).tolist() == [1.5, 5.0]


def test_select_renumbers_sequences() -> None:
    tokens = make_tokens([0.0] * 4, [0.0] * 4, sequences=[0, 1, 2, 2], extra=torch.arange(4.0))
    part = tokens.select(torch.tensor([1, 3]))
    assert part.sequence_ids.tolist() == [0, 1]
    assert part.uid.tolist() == [101, 102]
    assert part.columns["extra"].tolist() == [1.0, 3.0]
