"""Exact resume: after an end, a signal, a kill, a checkpoint cut short; and checkpoints that are refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ecrl.cli import main
from ecrl.config.resume import resumed_config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.errors import UsageError
from ecrl.runs.checkpoints import saved_iterations
from ecrl.training.checkpoint import StopRequest
from ecrl.training.module import PolicyModule
from ecrl.training.run import train
from tests.support.runs import assert_same_run, history, run, silent


def test_resume_is_exact(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=5")
    parts = run(base, tmp_path / "parts", "iterations=2")
    for total in (3, 5):
        train(resumed_config([f"resume={parts}", f"iterations={total}"]), silent)
    assert [row["iteration"] for row in history(whole)] == [0, 1, 2, 3, 4, 5]
    assert_same_run(whole, parts)


@pytest.mark.slow
def test_history_behind_the_checkpoint_is_dropped_on_resume(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=4")
    parts = run(base, tmp_path / "parts", "iterations=2")
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "policy/entropy": 1.0}\n{"iteration": 4, "poli')  # died while writing
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM], ids=lambda s: s.name
)
def test_signals_leave_a_checkpoint_that_resumes_exactly(
    number: signal.Signals, base: list[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "stopped"
    command = [sys.executable, "-m", "ecrl", "train", *base, f"run_dir={run_dir}", "iterations=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"resume={run_dir}" in output
    done = history(run_dir)[-1]["iteration"]
    train(resumed_config([f"resume={run_dir}", f"iterations={done + 2}"]), silent)
    whole = run(base, tmp_path / "whole", f"iterations={done + 2}")
    assert_same_run(whole, run_dir)


def test_a_second_signal_stops_at_once_and_says_so(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def signal_twice(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PolicyModule, "training_step", signal_twice)
    assert main(["train", *base, f"run_dir={tmp_path / 'run'}"]) == 128 + signal.SIGTERM
    captured = capsys.readouterr()
    assert captured.err == "ecrl: interrupted by SIGTERM.\n"
    assert captured.out.count("SIGTERM: finishing this iteration") == 1


@pytest.mark.slow
def test_kill_leaves_the_last_checkpoint_whole(base: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "killed"
    command = [sys.executable, "-m", "ecrl", "train", *base, f"run_dir={run_dir}", "iterations=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "checkpoint.every=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 120
    while not saved_iterations(run_dir):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=60)
    total = len(history(run_dir)) + 3
    train(resumed_config([f"resume={run_dir}", f"iterations={total}"]), silent)
    assert_same_run(run(base, tmp_path / "whole", f"iterations={total}"), run_dir)


def test_resume_refuses_what_would_be_another_run(base: list[str], tmp_path: Path) -> None:
    run_dir = run(base, tmp_path / "run", "iterations=1")
    with pytest.raises(UsageError, match="asks for no more"):
        train(resumed_config([f"resume={run_dir}"]), silent)
    shard = run_dir / "checkpoints" / "1" / "__0_0.distcp"
    content = shard.read_bytes()
    flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    for damaged, message in [
        (content[:1000], "has 1000 bytes instead of"),
        (flipped, "content of .* changed"),
    ]:
        shard.write_bytes(damaged)
        with pytest.raises(UsageError, match=f"cannot be read as a checkpoint: .*{message}"):
            train(resumed_config([f"resume={run_dir}", "iterations=9"]), silent)
    shard.unlink()
    with pytest.raises(UsageError, match="is missing"):
        train(resumed_config([f"resume={run_dir}", "iterations=9"]), silent)
    assert len(history(run_dir)) == 2  # row 0 and row 1: nothing was lost


def test_a_signal_that_all_agreed_on_may_reach_a_process_later() -> None:
    class Peers(ProcessGroup):
        def max(self, value: int) -> int:
            return max(value, signal.SIGTERM)

    stop = StopRequest()
    assert stop.agreed(Peers()) and stop.signal is signal.SIGTERM
    stop.on_signal(signal.SIGTERM, None)  # the first that it gets itself
    with pytest.raises(KeyboardInterrupt):
        stop.on_signal(signal.SIGTERM, None)


def test_a_signal_that_comes_while_all_agree_is_not_lost() -> None:
    stop = StopRequest()

    class Peers(ProcessGroup):
        def max(self, value: int) -> int:
            if not value:
                stop.on_signal(signal.SIGTERM, None)
            return value

    assert not stop.agreed(Peers())
    assert stop.agreed(Peers()) and stop.signal is signal.SIGTERM


@pytest.mark.slow
def test_a_checkpoint_cut_short(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=4")
    cut = run(base, tmp_path / "cut", "iterations=2")
    folder = cut / "checkpoints" / "2"
    for left in ("3.partial", "1.removed"):  # died while it wrote the next one, or deleted an older one
        shutil.copytree(folder, folder.with_name(left))
        (folder.with_name(left) / "progress.pt").write_bytes(b"half")
    train(resumed_config([f"resume={cut}", "iterations=4"]), silent)
    assert_same_run(whole, cut)
    assert sorted(p.name for p in (cut / "checkpoints").iterdir()) == ["2", "4"]  # nothing half is left
