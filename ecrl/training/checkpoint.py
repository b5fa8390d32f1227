"""Checkpoints that are complete at any moment, and a stop that always leaves one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from ecrl.distributed.launch import is_first_process
from ecrl.distributed.lightning_strategies import load_progress
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.signals import handling_signals
from ecrl.errors import EcrlError, NonFiniteError, UsageError
from ecrl.runs.manifest import check_manifest, write_manifest
from ecrl.training.module import finished_iterations

OLD = ".old"


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop; a second one interrupts at once.

    Attributes:
        signal: the first signal that reached this process or, as agreed, another process of the run.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        # Whether a signal reached this process; the processes may agree on one before it does.
        self._received = False

    def agreed(self, process_group: ProcessGroup) -> bool:
        """Whether any process got a signal; then every process takes it, so that they stop together."""
        number = process_group.max(self.signal or 0)
        # A signal that came during this exchange is kept for the next one.
        if number:
            self.signal = signal.Signals(number)
        return bool(number)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle both signals within the block."""
        with handling_signals(self.on_signal):
            yield self

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Record a signal, and tell the user what happens next."""
        if self._received:
            raise KeyboardInterrupt(number)  # tells `ecrl.cli.main` which signal it was
        self._received = True
        self.signal = signal.Signals(number)
        if not is_first_process():
            return
        print(
            f"\n{self.signal.name}: finishing this iteration and saving a checkpoint. "
            "Send it again to stop at once; what came after the last checkpoint is then lost.",
            flush=True,
        )


class RunCheckpoint(Checkpoint):
    """Writes ``checkpoints/last`` between iterations.

    Between iterations the state is small and resumes exactly, so no checkpoint is written within one.

    Args:
        run_dir: the run directory.
        every: iterations between checkpoints.
        stop: asked after every iteration.
        process_group: the processes of the run, which stop together.
    """

    def __init__(self, run_dir: Path, every: int, stop: StopRequest, process_group: ProcessGroup) -> None:
        self.folder = run_dir / "checkpoints" / "last"
        self._every = every
        self._stop = stop
        self._process_group = process_group

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take SIGTERM back from Lightning, whose handler would cut the iteration short."""
        signal.signal(signal.SIGTERM, self._stop.on_signal)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if a checkpoint is due, or if the run stops here."""
        stopping = self._stop.agreed(self._process_group)
        if stopping:
            trainer.should_stop = True
        done = finished_iterations(trainer)
        if stopping or done % self._every == 0 or done == trainer.max_epochs:
            save(trainer, self.folder, self._process_group)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keep the state at a numerical failure for inspection, beside the last good checkpoint."""
        if isinstance(exception, NonFiniteError):
            save(trainer, self.folder.with_name("nonfinite"), self._process_group)


def save(trainer: L.Trainer, folder: Path, process_group: ProcessGroup) -> None:
    """Write a checkpoint aside, with a manifest of its files, then move it into place.

    Raises:
        EcrlError: it could not be written; the one in place, if any, stays.
    """
    aside = folder.with_name(folder.name + ".partial")
    process_group.first(lambda: shutil.rmtree(aside, ignore_errors=True))
    trainer.save_checkpoint(aside)

    def move_into_place() -> None:
        try:
            write_manifest(aside)
            # A crash between the two renames leaves `last.old`, which is found as well.
            old = folder.with_name(folder.name + OLD)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.rename(folder, old)
            os.rename(aside, folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise EcrlError(f"The checkpoint {folder} could not be written: {error}.") from None

    process_group.first(move_into_place)


def find_checkpoint(run_dir: Path) -> Path:
    """Return the last checkpoint of a run, after checking every byte of it.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    folder = run_dir / "checkpoints" / "last"
    if not folder.exists():
        folder = folder.with_name(folder.name + OLD)
    if not folder.exists():
        path = run_dir / "checkpoints" / "last"
        raise UsageError(
            f"{run_dir} has no checkpoint ({path} is missing), so it cannot be resumed; begin anew in "
            "another folder."
        )
    check_manifest(folder)
    return folder


def completed_iterations(folder: Path) -> int:
    """Number of iterations that the run of a checkpoint had completed."""
    progress = load_progress(folder)["loops"]["fit_loop"]["epoch_progress"]["current"]
    return int(progress["processed"])
