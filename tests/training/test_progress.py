"""Progress: lines with the time without a terminal, a bar with one, and a word in a long iteration."""

from __future__ import annotations

import re
import time
from pathlib import Path

import lightning as L
import pytest

from ecrl.runs.run_log import RunLog
from ecrl.training import progress
from ecrl.training.progress import ProgressMonitor
from tests.support.lightning import fit


def monitor(shown: list[str]) -> ProgressMonitor:
    return ProgressMonitor(RunLog(shown.append))


def test_plain_lines_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    fit(tmp_path, 3, monitor([]))
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    fit(tmp_path, 6, monitor(shown), resume=3, validate=True)
    line = (
        r"\d\d:\d\d:\d\d iteration {}/6  reward {}\.500  entropy {}  groups 3/4  \d+\.\d\d s/it  "
        r"left \d+:\d\d:\d\d"
    )
    iterations = [text for text in shown if " iteration " in text and "reward" in text]
    for text, wanted in zip(iterations, [(4, 3, "0.250"), (5, 4, "0.200"), (6, 5, "0.167")], strict=True):
        assert re.fullmatch(line.format(*wanted), text)


def test_only_the_first_and_the_last_where_lines_come_fast(tmp_path: Path) -> None:
    shown: list[str] = []
    fit(tmp_path, 5, monitor(shown))
    assert [re.search(r"iteration (\d)/5", text)[1] for text in shown] == ["1", "5"]  # type: ignore[index]


def test_a_long_iteration_is_not_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.2)
    shown: list[str] = []

    class Slow(L.Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
        ) -> None:
            if pl_module.iteration == 1 and batch_idx == 0:
                with pl_module.recorder.timer("generate"):  # type: ignore[operator, union-attr]
                    time.sleep(1)

    fit(tmp_path, 2, monitor(shown), Slow())
    said = [text for text in shown if text.endswith("iteration 2: generate")]
    assert 2 <= len(said) <= 5


def test_numbers_come_though_iterations_are_shorter_than_the_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.5)
    shown: list[str] = []

    class Slow(L.Callback):
        def on_train_batch_start(
            self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
        ) -> None:
            if batch_idx == 0:
                time.sleep(0.2)

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            pl_module.report.numbers["time/total"] = 0.2  # type: ignore[operator, union-attr]

    fit(tmp_path, 12, Slow(), monitor(shown))
    with_numbers = [text for text in shown if "reward" in text]
    assert len(with_numbers) >= 4 and len(with_numbers) >= len(shown) - 2


def test_the_bar_goes_on_where_the_run_does(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    bar = monitor([])
    begun: list[float] = []

    class Look(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            begun.append(bar._bar.tasks[0].completed)

    fit(tmp_path, 5, bar, Look(), resume=3)
    (task,) = bar._bar.tasks
    assert begun == [3] and (task.completed, task.total) == (5, 5)
    assert task.description.startswith("reward 4.500  entropy 0.200")
