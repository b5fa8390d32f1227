"""Intervals over seeds, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecrl.analysis.stats import band, differences_to_first, interval, paired

T2 = 4.302653  # Student's t for 95 %, 2 degrees of freedom, from a printed table


def test_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, so half the width is t / √3.
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.n == 3
    assert found.low == pytest.approx(2 - T2 / math.sqrt(3), abs=1e-5)
    assert found.high == pytest.approx(2 + T2 / math.sqrt(3), abs=1e-5)
    assert not found.excludes_zero and interval([9.0, 10.0, 11.0]).excludes_zero


def test_one_value_has_no_interval() -> None:
    found = interval([4.0])
    assert found.mean == 4 and math.isnan(found.low) and math.isnan(found.half) and not found.excludes_zero


def test_pairs_go_by_seed_not_by_order() -> None:
    # Differences 1, 2, 3; seeds 8 and 9 have no partner. Unpaired, the seeds' own spread would hide them.
    found = paired({3: 103.0, 1: 11.0, 2: 52.0, 8: 0.0}, {1: 10.0, 2: 50.0, 3: 100.0, 9: 0.0})
    assert found is not None
    assert (found.mean, found.n) == (2, 3)
    assert found.half == pytest.approx(T2 / math.sqrt(3), abs=1e-5)
    assert paired({1: 1.0}, {2: 1.0}) is None


def test_band_counts_only_seeds_that_measured() -> None:
    nan = math.nan
    found = band([[1.0, 5.0, nan], [2.0, nan, nan], [3.0, 7.0, nan]])
    assert found.n.tolist() == [3, 2, 0]
    np.testing.assert_allclose(found.mean, [2, 6, nan])
    # Two values 5 and 7: standard deviation √2, t = 12.7062 with one degree of freedom.
    np.testing.assert_allclose(found.high, [2 + T2 / math.sqrt(3), 6 + 12.7062, nan], atol=1e-4)
    np.testing.assert_allclose(found.low, [2 - T2 / math.sqrt(3), 6 - 12.7062, nan], atol=1e-4)


def test_intervals_cover_at_their_rate() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(1.0, 2.0, size=(3, 4000))
    found = band(draws, 0.9)
    covered = np.mean((found.low < 1) & (found.high > 1))
    assert covered == pytest.approx(0.9, abs=0.015)  # three standard errors


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(values)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_that_cannot_be_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        interval([1.0, 2.0], confidence)


def test_differences_with_a_pooled_spread() -> None:
    # Two arms: the paired interval. Differences 2 and 4: s = √2, s/√2 = 1, t(.975, 1) = 12.7062.
    (of,) = differences_to_first([[0.0, 1.0], [2.0, 5.0]])
    assert (of.mean, of.low, of.high) == pytest.approx((3.0, 3 - 12.7062, 3 + 12.7062), abs=1e-4)
    # Three arms: residuals ±1, ∓1, 0 leave a sum of squares 4 over 2 degrees of freedom: s² = 2,
    # s·√(2/2) = 1.41421; t(1 − .05/4, 2) = 6.20535.
    first, second = differences_to_first([[1.0, -1.0], [9.0, 11.0], [5.0, 5.0]])
    assert (first.mean, second.mean) == pytest.approx((10.0, 5.0))
    assert [of.high - of.mean for of in (first, second)] == pytest.approx([6.20535 * 1.41421] * 2, abs=1e-3)
    with pytest.raises(ValueError, match="two or more arms by two or more seeds"):
        differences_to_first([[1.0], [2.0]])
