"""What the writer logs: rows of metrics.jsonl, TensorBoard events, both after a resume."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
from matplotlib.figure import Figure

from ecrl.metrics import Record
from ecrl.runs.metrics_file import is_wall_time, read_metrics
from ecrl.training.loggers.tensorboard import LAYOUT
from tests.support.lightning import fit
from tests.support.runs import events


def test_tensorboard_and_jsonl_say_the_same(finished_run: Path) -> None:
    board = events(finished_run)
    rows = read_metrics(finished_run / "metrics.jsonl")
    names = {name for row in rows for name in row} - {"iteration", "step"}
    assert names == {n for n in board.Tags()["scalars"] if not n.startswith("overview/")}
    for name in names:
        written = [(r["iteration"], r[name]) for r in rows if name in r]
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert np.allclose(shown, written, rtol=1e-6)
    assert "cov/tokens" in board.Tags()["histograms"]
    assert any(tag.startswith("samples") for tag in board.Tags()["tensors"])
    assert any("custom_scalars" in tag for tag in board.Tags()["tensors"])


class Reader(L.Callback):
    """A callback behind the writer."""

    def __init__(self) -> None:
        self.seen: list[Record] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen.append(pl_module.report)  # type: ignore[arg-type]


def test_rows_are_numbered_from_one_and_row_zero_is_the_first_validation(tmp_path: Path) -> None:
    reader = Reader()
    fit(tmp_path, 3, reader, validate=True)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert set(rows[0]) == {"iteration", "step", "time/validate", "val/task/greedy"}
    assert rows[0]["val/task/greedy"] == 1.0
    assert [row["rollout/reward"] for row in rows[1:]] == [0.5, 1.5, 2.5]
    assert [row["policy/entropy"] for row in rows[1:]] == [1.0, 0.5, 1 / 3]
    assert [row["policy/lr"] for row in rows[1:]] == [0.25] * 3
    for row in rows[1:]:
        busy = row["time/total"] - row["time/validate"]
        assert row["throughput/tokens_per_second"] == pytest.approx(600 / busy)
    assert [record.numbers["rollout/reward"] for record in reader.seen] == [0.5, 1.5, 2.5]


def test_lines_are_strict_sorted_json(tmp_path: Path) -> None:
    fit(tmp_path, 2)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    for line in text.splitlines():
        first, second, *names = json.loads(line)
        assert (first, second) == ("iteration", "step") and names == sorted(names)
    assert json.loads(text.splitlines()[1])["policy/broken"] is None


def test_events_carry_the_iteration_and_the_layout_comes_once(tmp_path: Path) -> None:
    fit(tmp_path, 3, validate=True)
    board = events(tmp_path)
    assert [(e.step, e.value) for e in board.Scalars("rollout/reward")] == [(1, 0.5), (2, 1.5), (3, 2.5)]
    assert [e.step for e in board.Scalars("val/task/greedy")] == [0, 1, 2, 3]
    assert [e.step for e in board.Histograms("cov/tokens")] == [2]
    assert [e.step for e in board.Tensors("samples/text_summary")] == [2]
    (micro_batch,) = board.Tensors("custom_scalars__config__")
    for group in LAYOUT:
        assert group.encode() in micro_batch.tensor_proto.string_val[0]


def test_a_resumed_history_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(whole, 5)
    fit(parts, 2)
    with (parts / "metrics.jsonl").open("a") as file:  # written after the checkpoint, then killed in a row
        file.write('{"iteration": 3, "step": 6, "policy/weight": 99.0}\n{"iteration": 4, "st')
    fit(parts, 5, resume=2)

    def logged(run_dir: Path) -> list[str]:
        rows = read_metrics(run_dir / "metrics.jsonl")
        return [json.dumps({k: v for k, v in row.items() if not is_wall_time(k)}) for row in rows]

    assert len(logged(whole)) == 5 and logged(parts) == logged(whole)
    assert not list(parts.glob("*.partial"))
    # Of files that began in the same second, TensorBoard may read the later one first.
    assert sorted(e.step for e in events(parts).Scalars("policy/weight")) == [1, 2, 3, 4, 5]


class Slow(Figure):
    """Takes longer to draw than an iteration."""

    def draw(self, renderer: Any) -> None:
        time.sleep(0.3)
        super().draw(renderer)


class Broken(Figure):
    """Cannot be drawn."""

    def draw(self, renderer: Any) -> None:
        raise RuntimeError("no ink")


class Draws(L.Callback):
    """Records a figure every iteration."""

    def __init__(self, kind: type[Figure]) -> None:
        self.kind = kind

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.recorder.figure("picture", self.kind(figsize=(1, 1)))  # type: ignore[union-attr, operator]


def test_figures_are_all_drawn_at_the_end(tmp_path: Path) -> None:
    fit(tmp_path, 3, Draws(Slow))
    assert [image.step for image in events(tmp_path).Images("picture")] == [1, 2, 3]


def test_a_figure_that_cannot_be_drawn_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no ink"):
        fit(tmp_path, 3, Draws(Broken))
