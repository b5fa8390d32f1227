"""What the operating system refuses is said in a line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from ecrl.analysis.series import read_series
from ecrl.cli import main
from ecrl.errors import UsageError
from ecrl.runs import os_errors
from ecrl.runs.metrics_file import read_metrics
from tests.support.cli import refused


def test_an_output_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for command in ("eval", "warmup"):
        words = (f"output={tmp_path}/file/result", "model.path=/nowhere")
        assert "cannot be written" in refused(capsys, command, *words)
        assert "nowhere" in refused(capsys, command, f"output={tmp_path}/new/result", "model.path=/nowhere")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_path_that_no_file_system_takes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"run_dir={'x' * 300}"]) == 1
    assert capsys.readouterr().err == f"ecrl: {'x' * 300}: File name too long.\n"


def test_what_ran_out_is_said_in_a_line() -> None:
    # The wording of torch's own message.
    device = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB."
    said = os_errors.describe(torch.OutOfMemoryError(device))
    assert said is not None and said.startswith("Out of memory on the GPU (20.00 MiB more were")
    full = os_errors.describe(OSError(errno.ENOSPC, "No space left on device", "/disk/file"))
    assert full is not None and "The disk is full (/disk/file)" in full
    assert os_errors.describe(RuntimeError("shapes do not match")) is None
    assert (
        os_errors.describe(PermissionError(errno.EACCES, "Permission denied", "/a"))
        == "/a: Permission denied."
    )
    assert "Input/output error" in str(os_errors.describe(OSError(errno.EIO, "Input/output error")))
    assert os_errors.describe(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")) is None


def test_a_path_that_cannot_be_looked_at_is_refused() -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_series(Path("x" * 5000))
    with pytest.raises(UsageError, match=r"metrics\.jsonl cannot be read: File name too long"):
        read_metrics(Path("x" * 5000) / "metrics.jsonl")


def test_metrics_that_are_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"metrics\.jsonl cannot be read: Is a directory"):
        read_series(tmp_path)
