"""The run's log: early lines, the time, and by what a run ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ecrl.errors import EcrlError
from ecrl.runs.run_log import RunLog

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def test_early_lines_are_kept(tmp_path: Path) -> None:
    shown: list[str] = []
    log = RunLog(shown.append)
    log.say("before")
    log.open(tmp_path)
    log.say("after")
    log.note("unseen")
    assert shown == ["before", "after"]
    assert re.fullmatch(f"{STAMP}before\n{STAMP}after\n{STAMP}unseen\n", (tmp_path / "log.txt").read_text())


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for line in ("one", "two"):
        log = RunLog(print)
        log.open(tmp_path)
        log.note(line)
    assert [line.split()[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["one", "two"]


@pytest.mark.parametrize(
    ("error", "kept"), [(EcrlError("no engine"), "error: no engine"), (KeyError("x"), "KeyError")]
)
def test_the_end_is_noted(tmp_path: Path, error: Exception, kept: str) -> None:
    log = RunLog(print)
    log.open(tmp_path)
    with pytest.raises(type(error)), log.closing_words():
        raise error
    text = (tmp_path / "log.txt").read_text()
    assert kept in text
    assert ("Traceback" in text) == isinstance(error, KeyError)
