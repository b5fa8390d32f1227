"""The metrics file: what is read, what is dropped on resume, and where a file is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.errors import UsageError
from ecrl.runs.metrics_file import drop_after, is_wall_time, read_metrics, runs_in


def test_history_reports_where_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UsageError, match="is missing"):
        read_metrics(path)
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iterat')
    assert [row["iteration"] for row in read_metrics(path)] == [1, 2]


def test_only_the_clock_is_wall_time() -> None:
    assert is_wall_time("time/total") and is_wall_time("throughput/tokens_per_second")
    assert not is_wall_time("env/time/left") and not is_wall_time("timeouts")


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"\xff\xfe",
        b"[1]",
        b'{"step": 1}',
        b'{"iteration": "2"}',
        b'{"iteration": 2, "a": NaN}',
        b"",
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_dropped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    damaged = b'{"iteration": 1}\n' + line + b'\n{"iteration": 3}\n'
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2"):
        drop_after(path, 1)
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "tail",
    [b'{"iteration": 2, "a', b"\x00\x00\x00\x00", b'{"iteration": 2}', b'{"iteration": 2}\n{"iterat'],
)
def test_a_last_line_cut_short_leaves_a_file_to_append_to(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1, "a": 0.1}\n' + tail)
    drop_after(path, 1)
    assert path.read_bytes() == b'{"iteration": 1, "a": 0.1}\n'


def test_runs_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("arm_10-1", "arm_2-10", "arm_2-9", "arm", "10", "9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").touch()
    order = ["9", "10", "arm", "arm_2-9", "arm_2-10", "arm_10-1"]
    assert [run.name for run in runs_in(tmp_path)] == order
