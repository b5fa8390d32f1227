"""Which cases of a test `make test` and `make test-all` leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_unless(
    quick: Callable[..., bool], cases: Iterable[Any], sample: Callable[..., bool] | None = None
) -> list[Any]:
    """Mark all cases slow but those that are quick; a tuple is a case of several arguments.

    Args:
        quick: whether `make test` takes a case.
        cases: all of them.
        sample: whether `make test-all` takes a case; the others are for `make test-matrix`. None for all.
    """
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = [] if quick(*values) else [pytest.mark.slow]
        if marks and sample is not None and not sample(*values):
            marks = [pytest.mark.slow, pytest.mark.matrix]
        marked.append(pytest.param(*values, marks=marks))
    return marked
