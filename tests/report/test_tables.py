"""Numbers in tables."""

from __future__ import annotations

import math

from ecrl.analysis.stats import Interval
from ecrl.report.tables import _alone, _cells, _difference, _mean

NAN = math.nan


def test_a_column_has_one_number_of_decimals_and_three_figures() -> None:
    small, large = Interval(0.000123, NAN, NAN, 1), Interval(0.5, 0.4, 0.6, 3)
    assert _cells([small, None, large], _mean) == ["0.000123", "–", "0.500000 ± 0.100000"]
    assert _cells([large, Interval(0.0, 0.0, 0.0, 3)], _mean) == ["0.500 ± 0.100", "0.000 ± 0.000"]
    assert _cells([Interval(123.456, NAN, NAN, 1)], _alone) == ["123.46"]


def test_no_zero_has_a_minus() -> None:
    noise = Interval(-1e-17, -2e-17, 0.0, 3)
    assert _cells([noise], _difference) == ["+0.000 [+0.000, +0.000]"]
    # The interval is the wider: it says how much of the mean counts.
    assert _cells([Interval(-0.00001, -0.06, 0.06, 3)], _difference) == ["+0.0000 [-0.0600, +0.0600]"]
