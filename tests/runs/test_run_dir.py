"""The run's folder: refused before work begins, gone if nothing came of it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ecrl.config.compose import build_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.training.module import PolicyModule
from ecrl.training.run import train
from tests.support.cli import refused
from tests.support.runs import silent


def test_a_run_directory_that_cannot_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, "train", f"run_dir={tmp_path}/file/run")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(build_config([]))))

    def read_only(dir: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert "Read-only file system" in refused(capsys, "train", f"resume={tmp_path}")


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = tmp_path / "keep.json"
    keep.write_text("mine")
    assert "nothing is overwritten" in refused(capsys, "train", f"run_dir={tmp_path}")
    assert "nothing is overwritten" in refused(capsys, "eval", f"output={keep}")
    assert "nothing is overwritten" in refused(capsys, "warmup", f"output={keep}")
    assert keep.read_text() == "mine"


def test_a_run_that_fails_before_anything_is_there_leaves_no_folder(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise UsageError("a fault")

    monkeypatch.setattr(PolicyModule, "training_step", fails)
    for validates in (False, True):  # the latter leaves a row, which is kept
        with pytest.raises(UsageError, match="a fault"):
            train(tiny(f"eval.every={int(validates)}", "eval.problems=2", "eval.k=2"), silent)
        assert (tmp_path / "run").exists() == validates
    with pytest.raises(UsageError, match=r"choose another; it holds no checkpoint to resume"):
        train(tiny(), silent)
