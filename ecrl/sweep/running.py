"""Runs the cells of a sweep, several at a time, each as ``ecrl train`` in its own process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from ecrl.distributed.parent_death import end_with_parent
from ecrl.distributed.signals import handling_signals
from ecrl.errors import UsageError
from ecrl.runs.checkpoints import find_checkpoint, iteration_of, saved_iterations
from ecrl.runs.metrics_file import read_summary
from ecrl.sweep.definition import Cell

_TAIL = 2**16  # bytes at the end of a metrics.jsonl that hold its last row
_POLL = 0.2  # seconds between two checks of the processes
_SHOWN = 12  # number of last lines shown of a failed cell's log


def is_finished(cell: Cell) -> bool:
    """Whether the cell has all its iterations, by its summary, or by its checkpoint if it died earlier."""
    try:
        summary = read_summary(cell.run_dir)
    except UsageError:  # a file that is no summary proves nothing
        summary = None
    if summary is not None and summary["iterations"] >= cell.iterations:
        return True
    try:
        return iteration_of(find_checkpoint(cell.run_dir)) >= cell.iterations
    except UsageError:
        return False


def has_checkpoint(run_dir: Path) -> bool:
    """Whether the run has a checkpoint, valid or not."""
    return bool(saved_iterations(run_dir))


def iterations_done(run_dir: Path) -> int:
    """Return the iteration of the last whole row of a run's metrics; 0 if there is none."""
    try:
        with (run_dir / "metrics.jsonl").open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            lines = file.read().split(b"\n")
    except OSError:
        return 0
    for line in reversed(lines[:-1]):
        try:
            return int(json.loads(line)["iteration"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


class Work:
    """A cell's process.

    Args:
        cell: what to run; a cell whose folder has no checkpoint starts again.
        log: file for the output of the process.
        config_dir: a folder of the user's own config groups.
        inherited: open file descriptors that the process inherits.
    """

    def __init__(self, cell: Cell, log: Path, config_dir: str | None, inherited: Sequence[int] = ()) -> None:
        self.cell, self.log = cell, log
        self._stopped = False
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ecrl", "train", *self._words(config_dir)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # One thread each: several cells in parallel are faster than one on all cores.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                # Ctrl-C must not reach the cell directly: the sweep passes it on, once.
                start_new_session=True,
                pass_fds=inherited,
                preexec_fn=partial(end_with_parent, os.getpid()),
            )

    def _words(self, config_dir: str | None) -> list[str]:
        run_dir = self.cell.run_dir
        if has_checkpoint(run_dir):
            return [f"resume={run_dir}", "log.progress=false"]
        shutil.rmtree(run_dir, ignore_errors=True)
        folder = [] if config_dir is None else ["--config-dir", config_dir]
        return [*self.cell.overrides, f"run_dir={run_dir}", "log.progress=false", *folder]

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask for a checkpoint after this iteration; a second call kills the process."""
        if self._stopped:
            os.killpg(self._process.pid, signal.SIGKILL)
        elif not self.ended():
            self._process.send_signal(signal.SIGTERM)
        self._stopped = True

    def complaint(self) -> str | None:
        """Return what went wrong, with the last lines of the log; None if the cell is finished."""
        if is_finished(self.cell):
            return None
        lines = self.log.read_text(errors="replace").strip().splitlines()[-_SHOWN:]
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return "\n".join([f"{self.cell.name} {how}; the end of {self.log}:", *(f"    {x}" for x in lines)])


class Interrupt:
    """Counts SIGINT and SIGTERM instead of raising an exception."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.count = 0

    @contextmanager
    def listening(self) -> Iterator[Interrupt]:
        """Handle both signals within the block."""
        with handling_signals(self._note):
            yield self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.count += 1


def run_cells(
    cells: Sequence[Cell],
    start: Callable[[Cell], Work],
    jobs: int,
    look: Callable[[Sequence[Work]], None],
    ended: Callable[[Work], None],
) -> signal.Signals | None:
    """Run all cells, ``jobs`` at a time; a cell that fails does not stop the others.

    After SIGINT or SIGTERM no cell is started, and the running ones stop with a checkpoint; after a second
    signal they are killed.

    Args:
        cells: what to run, in order.
        start: starts a cell.
        jobs: number of cells at a time, at least 1.
        look: called several times a second with the running cells.
        ended: called with each cell that ended by itself, finished or failed.

    Returns:
        The signal that stopped the sweep, or None.
    """
    waiting, running = list(cells), list[Work]()
    heard = 0
    with Interrupt().listening() as interrupt:
        while running or (waiting and not interrupt.count):
            while waiting and len(running) < jobs and not interrupt.count:
                running.append(start(waiting.pop(0)))
            if interrupt.count > heard:
                heard = interrupt.count
                for work in running:
                    work.stop()
            for work in [w for w in running if w.ended()]:
                running.remove(work)
                if not interrupt.count or is_finished(work.cell):
                    ended(work)
            look(running)
            time.sleep(_POLL)
    return interrupt.signal
