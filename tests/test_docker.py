"""The Dockerfiles have no fault that a linter finds. No test builds them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
LINTER = Path(sys.executable).with_name("hadolint")


def lint(text: str) -> str:
    return subprocess.run([LINTER, "-"], input=text, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_linter_finds_nothing(file: Path) -> None:
    assert lint(file.read_text()) == ""
    copied = [line.split()[1] for line in file.read_text().splitlines() if line.startswith("COPY ")]
    assert copied and all((ROOT / name).exists() for name in copied)


def test_the_linter_finds_a_fault() -> None:
    assert "DL3006" in lint("FROM python\n")
    assert len(FILES) == 2
