"""The shortest run with strategies and validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import TINY

STACK = ["strategy=[kl_cov,adaptive_entropy]", "strategy.kl_cov.fraction=0.1"]
TARGET = ["strategy.adaptive_entropy.target=9.0", "eval.every=2", "eval.problems=4", "eval.k=2"]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", *STACK, *TARGET]
