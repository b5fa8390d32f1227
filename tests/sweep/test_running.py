"""Sweeps: real runs, cut off, resumed, failing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from ecrl.algorithm.strategy import Strategy
from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.sweep.definition import Cell
from ecrl.sweep.running import is_finished
from ecrl.training.run import train
from tests.support.cli import refused
from tests.support.runs import history, silent
from tests.support.tiny import TINY

ARMS = 'arms={grpo: "strategy=[]", on_policy: ["strategy=[]", "update.minibatches=1"]}'
SLOW = ["env=tests.support.faulty:test/SlowDigits-v0", "checkpoint.every=1"]
BOUND = 200  # seconds in which everything has to end


class Fails(Strategy):
    """A strategy of the user's own with a fault."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise ZeroDivisionError("a fault of the user's own")


@pytest.fixture
def common(tiny_model: Path) -> list[str]:
    return [*(o for o in TINY if not o.startswith("strategy")), f"model.path={tiny_model}"]


def begin(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ecrl", "sweep", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def sweep(*words: str) -> tuple[int, str]:
    process = begin(*words)
    output, _ = process.communicate(timeout=BOUND)
    return process.returncode, output


def working(folder: Path) -> list[int]:
    """Process ids of the cells at work in a sweep's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split("\0")
        except OSError:  # it ended just now
            continue
        if "train" in command and any(
            part.startswith((f"run_dir={folder}", f"resume={folder}")) for part in command
        ):
            found.append(int(process.name))
    return found


def wait_for(process: subprocess.Popen[str], condition: Any) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.02)


def begun(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/checkpoints/*") if path.name.isdecimal()]


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed(common: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    words = [f"output={folder}", ARMS, "seeds=[1,2]", "jobs=2", *common, *SLOW, "iterations=4"]
    process = begin(*words)
    wait_for(process, lambda: (folder / "grpo-1" / "summary.json").exists() or len(begun(folder)) >= 2)
    process.kill()
    process.communicate(timeout=BOUND)
    end = time.monotonic() + 20
    while working(folder):  # the cells die with the sweep, so that none is begun twice
        assert time.monotonic() < end
        time.sleep(0.02)

    code, output = sweep(str(folder))
    assert code == 0 and "4 of 4 cells are finished" in output, output
    names = {"grpo-1", "on_policy-1", "grpo-2", "on_policy-2"}
    assert {p.parent.name for p in folder.glob("*/summary.json")} == names
    cut = history(folder / "on_policy-1")
    alone = ["strategy=[]", "update.minibatches=1", "seed=1", f"run_dir={tmp_path / 'alone'}", "iterations=4"]
    train(build_config([*common, *SLOW, *alone]), silent)
    assert cut == history(tmp_path / "alone")

    # The same problems and random numbers in both arms of a seed, others in another seed.
    first = {name: history(folder / name)[0] for name in names}
    drawn = {
        n: [r[k] for k in ("rollout/reward", "rollout/tokens", "policy/entropy")] for n, r in first.items()
    }
    assert drawn["grpo-1"] == drawn["on_policy-1"] != drawn["grpo-2"] == drawn["on_policy-2"]
    assert history(folder / "grpo-1")[-1] != cut[-1]

    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("*-*/**/*")}
    code, output = sweep(*words)
    assert code == 0 and "4 cells, 4 finished before" in output, output
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*-*/**/*")} == stamps


def test_a_signal_stops_all_cells_with_a_checkpoint(common: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    process = begin(f"output={folder}", ARMS, "seeds=[1]", "jobs=2", *common, *SLOW, "iterations=500")
    wait_for(process, lambda: len(begun(folder)) == 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=BOUND)
    assert process.returncode == 130, output
    assert "0 of 2 cells are finished" in output and f"ecrl sweep {folder}" in output
    assert "failed" not in output and working(folder) == []
    for cell in ("grpo-1", "on_policy-1"):
        assert "SIGTERM: finishing this iteration" in (folder / "logs" / f"{cell}.log").read_text()
        assert (folder / cell / "summary.json").exists()


@pytest.mark.slow
def test_a_failing_cell_is_named_and_the_others_go_on(common: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    fails = "strategy.mine._target_=tests.sweep.test_running.Fails"
    broken = f'arms={{broken: ["strategy=[]", "{fails}"], grpo: "strategy=[]"}}'
    words = [f"output={folder}", broken, "seeds=[1]", "jobs=1", *common, "iterations=3"]
    (folder / "broken-1").mkdir(parents=True)
    assert main(["sweep", *words]) == 2  # a folder that is not a sweep's is left alone
    (folder / "broken-1").rmdir()
    code, output = sweep(*words)
    assert code == 1
    assert (
        "broken-1 ended with exit code 1" in output
        and "ZeroDivisionError: a fault of the user's own" in output
    )
    assert "1 of 2 cells are finished" in output and "failed: broken-1" in output
    assert (folder / "grpo-1" / "summary.json").exists()
    # It has no checkpoint: it is begun again, and fails again.
    assert not list((folder / "broken-1").glob("checkpoints/*"))
    assert sweep(str(folder))[0] == 1
    assert [row["iteration"] for row in history(folder / "broken-1")] == [1]


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another sweep is at work" in refused(capsys, "sweep", f"output={tmp_path}", ARMS, "seeds=[1]")


@pytest.mark.parametrize(
    ("summary", "finished"),
    [
        ("[]", False),
        ("3", False),
        ("{", False),
        ('{"iterations": "x", "versions": {}, "stopped_by": null}', False),
        ('{"iterations": 2, "versions": {}, "stopped_by": "SIGINT"}', False),
        ('{"iterations": 3, "versions": {}, "stopped_by": null}', True),
    ],
)
def test_only_a_whole_summary_finishes_a_cell(summary: str, finished: bool, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(summary)
    assert is_finished(Cell("a", 1, tmp_path, [], 3)) is finished
