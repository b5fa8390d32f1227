"""Progress: lines without a terminal, a bar with one."""

from __future__ import annotations

import re
from pathlib import Path

import lightning as L
import pytest

from ecrl.training import progress
from ecrl.training.progress import ProgressMonitor
from tests.support.lightning import fit


def test_plain_lines_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 2)
    fit(tmp_path, 3, ProgressMonitor())
    capsys.readouterr()
    fit(tmp_path, 7, ProgressMonitor(), resume=3, validate=True)
    line = r"iteration {}/7  reward {}\.500  entropy {}  groups 3/4  \d+\.\d\d s/it"
    printed = capsys.readouterr().out.split("\n")
    assert printed.pop() == ""  # nothing behind the last line's end
    for text, wanted in zip(printed, [(4, 3, "0.250"), (6, 5, "0.167"), (7, 6, "0.143")], strict=True):
        assert re.fullmatch(line.format(*wanted), text)


def test_the_bar_goes_on_where_the_run_does(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    bar = ProgressMonitor()
    begun: list[float] = []

    class Look(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            begun.append(bar._bar.tasks[0].completed)

    fit(tmp_path, 5, bar, Look(), resume=3)
    (task,) = bar._bar.tasks
    assert begun == [3] and (task.completed, task.total) == (5, 5)
    assert task.description.startswith("reward 4.500  entropy 0.200")
