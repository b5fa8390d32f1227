"""The mismatch between engine and trainer, against numbers worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from ecrl.algorithm.mismatch import mismatch


def test_golden_numbers() -> None:
    # ratios π_old/μ: 4, 1/4, 1, 3/2
    x = torch.tensor([4.0, 0.25, 1.0, 1.5]).log()
    engine = torch.tensor([-5.0, -1.0, -2.0, -3.0])
    # k3 = ratio − 1 − log ratio: 3 − log 4, −3/4 + log 4, 0, 1/2 − log 3/2
    expected = {
        "mismatch/kl": (2.75 - log(1.5)) / 4,
        "mismatch/max": log(4.0),
        "mismatch/outside": 0.5,
    }
    assert mismatch(engine + x, engine, 0.5, 2.0) == pytest.approx(expected, abs=1e-6)
    # Direction matters: the other way round the ratios are 1/4, 4, 1, 2/3.
    swapped = mismatch(engine, engine + x, 0.5, 2.0)
    assert swapped["mismatch/kl"] == pytest.approx((2.25 - 1 / 3 + log(1.5)) / 4, abs=1e-6)


def test_bounds_are_inclusive_and_each_counts() -> None:
    zeros = torch.zeros(4)
    x = torch.tensor([0.5, 2.0, 0.49, 2.1]).log()
    assert mismatch(x, zeros, 0.5, 2.0)["mismatch/outside"] == 0.5
    assert mismatch(x, zeros, 0.1, 2.0)["mismatch/outside"] == 0.25
    assert mismatch(x, zeros, 0.5, 9.0)["mismatch/outside"] == 0.25


def test_an_exact_engine_and_no_tokens() -> None:
    logprobs = torch.tensor([-1.0, -20.0])
    assert mismatch(logprobs, logprobs, 0.5, 2.0) == {
        "mismatch/kl": 0.0,
        "mismatch/max": 0.0,
        "mismatch/outside": 0.0,
    }
    assert mismatch(torch.zeros(0), torch.zeros(0), 0.5, 2.0) == {}
