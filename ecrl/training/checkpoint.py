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

from ecrl.config.schema import CheckpointConfig
from ecrl.distributed.launch import is_first_process
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.signals import handling_signals
from ecrl.errors import EcrlError, NonFiniteError, UsageError, name_message
from ecrl.runs.checkpoints import folder_of, is_best, prune, remove
from ecrl.runs.manifest import write_manifest
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.module import finished_iterations


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
    """Writes ``checkpoints/ITERATION`` between iterations, and deletes those that need not stay.

    Between iterations the state is small and resumes exactly, so no checkpoint is written within one.

    Args:
        run_dir: the run directory.
        settings: when to write, and what stays.
        stop: asked after every iteration.
        process_group: the processes of the run, which stop together.
    """

    def __init__(
        self, run_dir: Path, settings: CheckpointConfig, stop: StopRequest, process_group: ProcessGroup
    ) -> None:
        self._run_dir = run_dir
        self._settings = settings
        self._stop = stop
        self._process_group = process_group

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take SIGTERM back from Lightning, whose handler would cut the iteration short.

        Raises:
            UsageError: the run is validated, but not by ``checkpoint.best``.
        """
        signal.signal(signal.SIGTERM, self._stop.on_signal)
        self._process_group.first(self._check_metric)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if a checkpoint is due, or if the run stops here."""
        stopping = self._stop.agreed(self._process_group)
        if stopping:
            trainer.should_stop = True
        settings, done = self._settings, finished_iterations(trainer)
        due = any(every and done % every == 0 for every in (settings.every, settings.keep_every))
        due |= stopping or done == trainer.max_epochs
        if due or self._process_group.first(lambda: is_best(self._run_dir, settings.best, done)):
            save(trainer, folder_of(self._run_dir, done), self._process_group)
            self._process_group.first(lambda: prune(self._run_dir, settings))

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keep the state at a numerical failure for inspection, beside the last good checkpoint."""
        if isinstance(exception, NonFiniteError):
            save(trainer, self._run_dir / "checkpoints" / "nonfinite", self._process_group)

    def _check_metric(self) -> None:
        path, metric = self._run_dir / "metrics.jsonl", self._settings.best
        rows = read_metrics(path) if path.exists() else []
        known = {name for row in rows for name in row if name.startswith("val/")}
        if metric is not None and known and metric not in known:
            raise UsageError(name_message("metric in checkpoint.best", metric, known))


def save(trainer: L.Trainer, folder: Path, process_group: ProcessGroup) -> None:
    """Write a checkpoint aside, with a manifest of its files, then move it into place.

    Raises:
        EcrlError: it could not be written; the ones in place stay.
    """
    aside = folder.with_name(folder.name + ".partial")

    def clear() -> None:
        for rest in folder.parent.glob("*.partial"):
            shutil.rmtree(rest, ignore_errors=True)

    process_group.first(clear)
    trainer.save_checkpoint(aside)

    def move_into_place() -> None:
        try:
            write_manifest(aside)
            if folder.exists():
                remove(folder)
            os.rename(aside, folder)
        except OSError as error:
            raise EcrlError(f"The checkpoint {folder} could not be written: {error}.") from None

    process_group.first(move_into_place)
