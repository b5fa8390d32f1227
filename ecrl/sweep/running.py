"""Runs the cells of a sweep, several at once, each as ``ecrl train`` in a process of its own."""

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
from ecrl.errors import UsageError
from ecrl.runs.metrics_file import read_summary
from ecrl.sweep.definition import Cell
from ecrl.training.checkpoint import OLD, completed_iterations, find_checkpoint

_TAIL = 2**16  # bytes at the end of a metrics.jsonl that hold its last row
_POLL = 0.2  # seconds between two looks at the processes
_SHOWN = 12  # last lines shown of a failed cell's log


def is_finished(cell: Cell) -> bool:
    """Whether the cell has all its iterations, by its summary or, if it died before that, its checkpoint."""
    try:
        summary = read_summary(cell.run_dir)
    except UsageError:  # what is no summary finishes nothing
        summary = None
    if summary is not None and summary["iterations"] >= cell.iterations:
        return True
    try:
        return completed_iterations(find_checkpoint(cell.run_dir)) >= cell.iterations
    except UsageError:
        return False


def has_checkpoint(run_dir: Path) -> bool:
    """Whether there is something to go on from, whole or not."""
    return any((run_dir / "checkpoints" / name).exists() for name in ("last", f"last{OLD}"))


def iterations_done(run_dir: Path) -> int:
    """Iteration of the last whole row of a run's metrics; 0 if there is none."""
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
        cell: which; a folder of it without a checkpoint is begun again.
        log: file for what the process says.
        config_dir: the user's own config groups.
        inherited: open files that the process is to hold.
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
                # One thread each: cells side by side are faster than one on all cores.
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                # Ctrl-C is for the sweep to pass on, once.
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
        """Whether the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask for a checkpoint after this iteration; asked again, end at once."""
        if self._stopped:
            os.killpg(self._process.pid, signal.SIGKILL)
        elif not self.ended():
            self._process.send_signal(signal.SIGTERM)
        self._stopped = True

    def complaint(self) -> str | None:
        """What went wrong, once it ended: the exit code and the last lines of the log."""
        if is_finished(self.cell):
            return None
        lines = self.log.read_text(errors="replace").strip().splitlines()[-_SHOWN:]
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return "\n".join([f"{self.cell.name} {how}; the end of {self.log}:", *(f"    {x}" for x in lines)])


class Interrupt:
    """Counts SIGINT and SIGTERM instead of raising in the middle of something."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.count = 0

    @contextmanager
    def listening(self) -> Iterator[Interrupt]:
        """Handle both signals within the block."""
        before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

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
    """Run all cells, ``jobs`` at a time; what one does is nothing to the others.

    After SIGINT or SIGTERM no cell is begun, and those that run are stopped with a checkpoint; after a
    second one they are ended at once.

    Args:
        cells: in order.
        start: begins one.
        jobs: how many run at once, at least 1.
        look: called several times a second with those that run.
        ended: called with each that ended by itself, well or not.

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
