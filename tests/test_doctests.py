"""The examples in the docstrings of the public API run as written."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import ecrl


def public_modules() -> list[str]:
    """The modules where the names of ``ecrl.__all__`` are defined, and ``ecrl`` itself."""
    names = getattr(ecrl, "__all__", ())
    homes = {getattr(getattr(ecrl, name), "__module__", "ecrl") for name in names}
    return sorted({"ecrl", *homes})


@pytest.mark.parametrize("name", public_modules())
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write where it is
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_the_public_api_has_examples() -> None:
    if not hasattr(ecrl, "__all__"):
        pytest.skip("ecrl names no public API yet")
    finder = doctest.DocTestFinder()
    examples = [test for name in public_modules() for test in finder.find(import_module(name))]
    assert any(test.examples for test in examples)
