"""Checkpoints that are always whole, and a stop that always leaves one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from ecrl.errors import NonFiniteError, UsageError
from ecrl.module import finished_iterations


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a wish to stop; a second one interrupts at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handle both signals within the block."""
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        print(
            f"\n{self.signal.name}: finishing this iteration and saving a checkpoint. "
            "Send it again to stop at once (the last checkpoint stays).",
            flush=True,
        )


class RunCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` between iterations.

    An iteration is never cut: at its border the state is small and resumes exactly. A checkpoint is
    written aside and moved into place, so a crash leaves the previous one whole.

    Args:
        run_dir: the run directory.
        every: iterations between checkpoints.
        stop: asked after every iteration.
    """

    def __init__(self, run_dir: Path, every: int, stop: StopRequest) -> None:
        self.path = run_dir / "checkpoints" / "last.ckpt"
        self._every = every
        self._stop = stop

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take SIGTERM back from Lightning, whose handler would cut the iteration short."""
        signal.signal(signal.SIGTERM, self._stop._on_signal)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if it is time, or the last chance."""
        stopping = self._stop.signal is not None
        if stopping:
            trainer.should_stop = True
        done = finished_iterations(trainer)
        if stopping or done % self._every == 0 or done == trainer.max_epochs:
            save(trainer, self.path)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keep the state at a numerical failure for inspection, beside the last good checkpoint."""
        if isinstance(exception, NonFiniteError):
            save(trainer, self.path.with_name("nonfinite.ckpt"))


def save(trainer: L.Trainer, path: Path) -> None:
    """Write a checkpoint aside, then move it into place."""
    aside = path.with_name(path.name + ".partial")
    trainer.save_checkpoint(aside)
    if trainer.is_global_zero:
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)


def find_checkpoint(run_dir: Path) -> Path:
    """Return the checkpoint of a run, after a look inside.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = run_dir / "checkpoints" / "last.ckpt"
    if not path.exists():
        raise UsageError(f"{run_dir} has no checkpoint ({path} is missing), so it cannot be resumed.")
    try:
        content: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        complete = {"state_dict", "epoch", "callbacks"} <= set(content)
    except Exception as error:  # torch.load raises a different type for each way a file can be broken
        raise UsageError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); it is damaged. "
            "Start a new run, or put a whole checkpoint in its place."
        ) from None
    if not complete:
        raise UsageError(f"{path} is not a checkpoint of a run: it holds {sorted(content)}.")
    return path


def iterations_behind(checkpoint: Path) -> int:
    """Iterations that a checkpoint has behind it."""
    content = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
    progress = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    return int(progress["processed"])
