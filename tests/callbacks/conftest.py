"""A trained policy, and the matrix of strategies, objectives and precisions."""

from __future__ import annotations

import pytest

from tests.support.trained import CELLS, Bench, Trained


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A policy that a few seconds of supervision made sure of itself."""
    return Trained(tmp_path_factory.mktemp("trained") / "policy")


@pytest.fixture(scope="module", params=CELLS, ids=str)
def bench(request: pytest.FixtureRequest, trained: Trained) -> Bench:
    """One cell of the matrix."""
    return Bench(request.param, trained)
