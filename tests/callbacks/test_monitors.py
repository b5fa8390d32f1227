"""Monitors under a real trainer: rows, events, resume, tables, progress lines."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from torch import Tensor
from torch.utils.data import DataLoader

from ecrl.algorithm.loss_plan import make_loss_plan
from ecrl.algorithm.objective import Objective
from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.callbacks.monitors.samples import LONGEST, SampleMonitor, cell
from ecrl.engines.base import Completion
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder, Record
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.runs.metrics_file import drop_after, is_wall_time, read_metrics
from ecrl.training import progress
from ecrl.training.metrics_writer import LAYOUT, MetricsWriter
from ecrl.training.module import finished_iterations
from ecrl.training.progress import ProgressMonitor
from tests.support.tokens import make_tokens


class Tiny(L.LightningModule):
    """One weight; what it reports depends on the iteration and on the weight alone."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.recorder = MetricsRecorder()
        self.report = Record()
        self.rollout_entropy = float("nan")

    @property
    def iteration(self) -> int:
        return finished_iterations(self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.25)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        (self.weight**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.recorder.record("policy/weight", float(self.weight.detach()))
        self.recorder.record("rollout/reward", self.iteration + 0.5)
        self.recorder.record("rollout/tokens", 600.0)
        if self.iteration == 1:
            self.recorder.record("policy/broken", float("inf"))
            self.recorder.histogram("cov/tokens", torch.arange(4.0))
            self.recorder.text("samples", "| a |\n|---|\n| b |")
        self.rollout_entropy = 1.0 / (self.iteration + 1)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        with self.recorder.timer("validate"):
            self.recorder.record("val/task/greedy", float(self.weight.detach()))


class Reader(L.Callback):
    """A callback behind the writer."""

    def __init__(self) -> None:
        self.seen: list[Record] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen.append(pl_module.report)  # type: ignore[arg-type]


def fit(run_dir: Path, epochs: int, *more: L.Callback, resume: int = 0, validate: bool = False) -> L.Trainer:
    """Train two optimizer steps an iteration; leave a checkpoint behind."""
    run_dir.mkdir(exist_ok=True)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=TensorBoardLogger(run_dir, name="", version="tensorboard", purge_step=resume + 1),
        callbacks=[MetricsWriter(run_dir), *more],
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    module, data = Tiny(), DataLoader([0, 1])  # type: ignore[arg-type, var-annotated]
    if validate and not resume:
        trainer.validate(module, data, verbose=False)
    path = run_dir / f"{resume}.ckpt" if resume else None
    trainer.fit(module, data, data if validate else None, ckpt_path=path)
    trainer.save_checkpoint(run_dir / f"{epochs}.ckpt")
    return trainer


def events(run_dir: Path) -> EventAccumulator:
    board = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    return board.Reload()


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
    assert [e.step for e in events(parts).Scalars("policy/weight")] == [1, 2, 3, 4, 5]


def test_only_the_clock_is_wall_time() -> None:
    assert is_wall_time("time/total") and is_wall_time("throughput/tokens_per_second")
    assert not is_wall_time("env/time/left") and not is_wall_time("timeouts")


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[1]", b'{"step": 1}', b'{"iteration": "2"}', b'{"iteration": 2, "a": NaN}', b""]
)
def test_a_malformed_line_is_named_and_nothing_is_dropped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    damaged = b'{"iteration": 1}\n' + line + b'\n{"iteration": 3}\n'
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2"):
        drop_after(path, 1)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("tail", [b'{"iteration": 2, "a', b"\x00\x00\x00\x00", b'{"iteration": 2}'])
def test_a_last_line_cut_short_leaves_a_file_to_append_to(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1, "a": 0.1}\n' + tail)
    drop_after(path, 1)
    assert path.read_bytes() == b'{"iteration": 1, "a": 0.1}\n'


def recording(iteration: int = 0) -> Any:
    return SimpleNamespace(recorder=MetricsRecorder(), iteration=iteration)


def test_covariance_quantiles_and_top_shares() -> None:
    """Log-probs and advantages are both ±i/2, i = 1…500: the covariances are i²/4, each twice."""
    half = [i / 2 for i in range(1, 501)]
    values = [*half, *(-x for x in half)]
    tokens = make_tokens(values, values)
    plan = make_loss_plan(replace(tokens, logprobs=tokens.logprobs.detach()), Objective(), [])
    module = recording()
    CovarianceMonitor(every=2).on_plan(module, plan, fresh=True)
    record = module.recorder.flush()
    square = [x * x for x in half for _ in range(2)][::-1]  # falling, each twice
    assert record.numbers == pytest.approx(
        {
            "cov/mean": sum(square) / 1000,
            "cov/max": 250.0**2,
            "cov/q99": square[10],
            "cov/q90": square[100],
            "cov/q50": square[500],
            "cov/top_0.02%": 250.0**2,
            "cov/top_0.2%": 250.0**2,
            "cov/top_2%": sum(square[:20]) / 20,
            "cov/top_20%": sum(square[:200]) / 200,
            "cov/top_50%": sum(square[:500]) / 500,
        },
        rel=1e-5,
    )
    assert not record.histograms


def test_covariance_uses_the_shaped_advantages_and_its_histogram_is_due() -> None:
    tokens = make_tokens([-1.0, -3.0], [1.0, 1.0])
    plan = make_loss_plan(replace(tokens, logprobs=tokens.logprobs.detach()), Objective(), [])
    shaped = replace(plan, tokens=replace(plan.tokens, advantages=torch.tensor([2.0, 0.0])))
    due = []
    for iteration in range(4):
        module = recording(iteration)
        CovarianceMonitor(every=2).on_plan(module, shaped, fresh=True)
        record = module.recorder.flush()
        assert record.numbers["cov/mean"] == pytest.approx(1.0)
        due.append("cov/tokens" in record.histograms)
    assert due == [False, True, False, True]


def trajectories(count: int) -> Sequence[Trajectory]:
    completion = Completion([5], [-1.0], [1.0], "stop", 0)
    return [
        Trajectory([1], [Turn([], completion)], i, 0, i / 4, True, False, {}, None, f"p{i}", f"r{i}")
        for i in range(count)
    ]


def test_sample_tables_are_due_and_of_the_right_size() -> None:
    texts = []
    for iteration in range(3):
        module = recording(iteration)
        SampleMonitor(every=3, count=2).on_rollout(module, trajectories(6))
        texts.append(module.recorder.flush().texts)
    assert texts[:2] == [{}, {}]
    assert texts[2]["samples"].splitlines()[2:] == ["| p0 | r0 | 0 |  |", "| p3 | r3 | 0.75 |  |"]


@pytest.mark.parametrize(
    "text",
    [
        "`a` | b",
        "x < 3 && y > 2",
        "&#124; &lt;b&gt;",
        "# **1** _2_ \\frac{1}{2} [a](b) ~c~ $d$",
        "",
        "<br>\n|",
    ],
)
def test_tensorboard_shows_a_cell_as_it_was(text: str) -> None:
    table = markdown_to_safe_html(f"| head | n |\n|---|---|\n| {cell(text)} | 1 |")
    body = re.search(r"<tbody>\s*<tr>\s*<td>(.*)</td>\s*<td>1</td>\s*</tr>\s*</tbody>", table)
    assert body is not None
    assert html.unescape(body.group(1).replace("<br>", "\n")).strip() == text


def test_long_cells_keep_their_ends() -> None:
    short = cell("a" * LONGEST + "middle" + "b" * LONGEST)
    assert short == "a" * (LONGEST // 2) + " … " + "b" * (LONGEST // 2)


def test_plain_lines_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 2)
    fit(tmp_path, 3, ProgressMonitor())
    capsys.readouterr()
    fit(tmp_path, 7, ProgressMonitor(), resume=3, validate=True)
    line = r"iteration {}/7  reward {}\.500  entropy {}  \d+\.\d\d s/it"
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
