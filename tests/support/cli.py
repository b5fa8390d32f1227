"""The command line as a user meets it."""

from __future__ import annotations

import pytest

from ecrl.cli import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must be refused; return its one line."""
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.startswith("ecrl: ") and captured.err.count("\n") == 1, captured.err
    return captured.err
