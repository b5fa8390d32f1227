"""What goes wrong in a run ends it in bounded time, is named, and costs at most what no checkpoint has."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecrl.runs.checkpoints import saved_iterations
from tests.support.runs import assert_same_run
from tests.support.tiny import TINY

SLOW = ["env=tests.support.faulty:test/SlowDigits-v0", "checkpoint.every=1"]
MANY = ["trainer.accelerator=cpu", "trainer.devices=2"]
TOTAL = 8  # iterations of the undisturbed run
BOUND = 150  # seconds in which everything has to end


class Run:
    """``ecrl train`` in processes of its own; ``shutdown``: seconds they have to end after a signal."""

    def __init__(self, base: list[str], run_dir: Path, *overrides: str, shutdown: int = 60) -> None:
        self.run_dir = run_dir
        command = [sys.executable, "-m", "ecrl", "train", *base, f"run_dir={run_dir}", *overrides]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(shutdown)},
        )

    def reach(self, iteration: int) -> Run:
        """Wait until it has a checkpoint and its history has so many iterations behind it."""
        file = self.run_dir / "metrics.jsonl"
        end = time.monotonic() + BOUND
        while not saved_iterations(self.run_dir) or len(file.read_text().splitlines()) <= iteration:
            assert self.process.poll() is None and time.monotonic() < end, self.process.communicate()[0]
            time.sleep(0.02)
        return self

    def rank(self, rank: int) -> int:
        """The process id of a rank."""
        for pid in self.alive():
            if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
                return pid
        raise AssertionError(f"rank {rank} does not run")

    def alive(self) -> list[int]:
        """Process ids of the launcher and all ranks."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_text().split("\0")
            except OSError:  # it ended just now
                continue
            if any(part in (f"run_dir={self.run_dir}", f"resume={self.run_dir}") for part in command):
                found.append(int(folder.name))
        return found

    def end(self) -> tuple[int, str]:
        """Exit code and output, once it ended; nothing may be left of it."""
        output, _ = self.process.communicate(timeout=BOUND)
        assert self.alive() == []
        return self.process.returncode, output


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", *SLOW]


@pytest.fixture
def start(base: list[str], tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start runs; whatever a failed test left is killed."""
    runs: list[Run] = []

    def begin(*overrides: str, name: str = "run", shutdown: int = 60) -> Run:
        runs.append(Run(base, tmp_path / name, *overrides, shutdown=shutdown))
        return runs[-1]

    yield begin
    for each in runs:
        for pid in each.alive():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    whole = Run([*TINY, f"model.path={tiny_model}", *SLOW], path, *MANY, f"iterations={TOTAL}")
    code, output = whole.end()
    assert code == 0, output
    return path


def assert_resumes(run_dir: Path, undisturbed: Path) -> None:
    command = [sys.executable, "-m", "ecrl", "train", f"resume={run_dir}", f"iterations={TOTAL}"]
    subprocess.run(command, check=True, timeout=BOUND, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert_same_run(run_dir, undisturbed)


def assert_one_line(output: str, *parts: str) -> None:
    """No traceback, and exactly one line says all of this."""
    assert "Traceback" not in output, output
    assert len([line for line in output.splitlines() if all(p in line for p in parts)]) == 1, output


@pytest.mark.slow
def test_a_killed_process(start: Callable[..., Run], undisturbed: Path) -> None:
    broken = start(*MANY, "iterations=500").reach(2)
    os.kill(broken.rank(1), signal.SIGKILL)
    code, output = broken.end()
    assert code == 1
    assert_one_line(output, "Process 1", "killed by SIGKILL", "resume=")
    assert_one_line(output, "ecrl: ")  # those that only noticed say nothing
    assert_resumes(broken.run_dir, undisturbed)


@pytest.mark.slow
def test_a_killed_launcher_takes_its_processes_along(start: Callable[..., Run]) -> None:
    orphaned = start(*MANY, "iterations=500").reach(1)
    assert len(orphaned.alive()) == 3
    orphaned.process.kill()
    orphaned.process.communicate(timeout=BOUND)  # its pipe closes when the last of them is gone
    assert orphaned.alive() == []


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True], ids=["SIGTERM-to-launcher", "SIGINT-to-all"])
def test_signals_stop_all_at_one_iteration(
    to_all: bool, start: Callable[..., Run], undisturbed: Path
) -> None:
    stopped = start(*MANY, "iterations=500").reach(2)
    if to_all:  # what Ctrl-C in a terminal does
        os.killpg(stopped.process.pid, signal.SIGINT)
    else:
        stopped.process.send_signal(signal.SIGTERM)
    code, output = stopped.end()
    assert code == 128 + (signal.SIGINT if to_all else signal.SIGTERM), output
    assert_one_line(output, f"resume={stopped.run_dir}")
    assert_resumes(stopped.run_dir, undisturbed)


@pytest.mark.slow
def test_a_second_signal_stops_all_at_once(start: Callable[..., Run]) -> None:
    stopped = start(*MANY, "rollout.group_size=64", "iterations=500").reach(1)  # some seconds an iteration
    for _ in range(2):
        stopped.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    code, output = stopped.end()
    assert code == 128 + signal.SIGTERM
    assert_one_line(output, "ecrl: interrupted by SIGTERM")
    assert "death signal" not in output, output


def test_an_environment_that_raises_on_one_process(start: Callable[..., Run]) -> None:
    code, output = start(*MANY, "env.kwargs.raises_at=20", "iterations=500").end()
    assert code == 1
    assert_one_line(output, "SlowDigits-v0", "ZeroDivisionError", "faulty.py")


@pytest.mark.slow
def test_a_strategy_that_raises_on_both(start: Callable[..., Run]) -> None:
    strategy = "strategy.mine._target_=tests.support.raising.RaisingStrategy"
    code, output = start(*MANY, strategy, "iterations=500").end()
    assert code == 1
    assert_one_line(output, "strategy.mine failed: ZeroDivisionError", "errors/strategy.mine.txt")


@pytest.mark.slow
def test_an_engine_that_stops_answering(start: Callable[..., Run]) -> None:
    engine = "engine._target_=tests.support.faulty.HangingEngine"
    code, output = start(*MANY, engine, "trainer.timeout=10", "iterations=500").end()
    assert code == 1
    # Twice the time-out: first the others' collective may fail, which is no fault of their engine.
    assert output.count("did not return within 20 s") == 1 and "faulty.py" in output, output


@pytest.mark.slow
def test_a_process_without_memory(start: Callable[..., Run]) -> None:
    engine = "engine._target_=tests.support.faulty.GreedyEngine"
    code, output = start(*MANY, engine, "iterations=500").end()
    assert code == 1
    assert_one_line(output, "Out of memory on this machine", "update.max_tokens")


@pytest.mark.slow
def test_a_process_that_hangs(start: Callable[..., Run]) -> None:
    frozen = start(*MANY, "trainer.timeout=10", "iterations=500", shutdown=5).reach(1)
    os.kill(frozen.rank(1), signal.SIGSTOP)
    code, output = frozen.end()
    assert code == 1
    assert_one_line(output, "stopped answering within trainer.timeout")


@pytest.mark.slow
def test_a_process_that_hangs_while_all_draw(start: Callable[..., Run]) -> None:
    engine = "engine._target_=tests.support.faulty.FreezingEngine"
    code, output = start(*MANY, engine, "trainer.timeout=10", "iterations=500", shutdown=5).end()
    assert code == 1
    assert_one_line(output, "ecrl: ")
    assert_one_line(output, "stopped answering within trainer.timeout")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk(processes: int, start: Callable[..., Run], undisturbed: Path) -> None:
    settings = [*MANY, f"trainer.devices={processes}"]
    full = start(*settings, "iterations=500").reach(2)
    pid = full.rank(0) if processes > 1 else full.process.pid
    # As if nothing larger than this fitted any more: logs do, checkpoints do not.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    code, output = full.end()
    assert code == 1
    assert_one_line(output, "ecrl: ", "checkpoint")
    if processes > 1:
        assert_resumes(full.run_dir, undisturbed)


@pytest.mark.slow
def test_two_runs_at_once(start: Callable[..., Run], undisturbed: Path) -> None:
    both = [start(*MANY, f"iterations={TOTAL}", name=name) for name in ("one", "other")]
    for each in both:
        code, output = each.end()
        assert code == 0, output
        assert_same_run(each.run_dir, undisturbed)
