"""The shortest run with strategies and validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import STACK, TINY


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", *STACK]
