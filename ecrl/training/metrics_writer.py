"""Closes every iteration: its row of ``metrics.jsonl``, and the same numbers for the loggers."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lightning as L

from ecrl.runs.checkpoints import go_back
from ecrl.runs.metrics_file import as_line
from ecrl.training.loggers.run_loggers import RunLoggers

if TYPE_CHECKING:
    from ecrl.training.datamodule import RolloutDataModule
    from ecrl.training.module import PolicyModule


class MetricsWriter(L.Callback):
    """Closes each iteration's record. Callbacks that read ``module.report`` come after it.

    Rows are on disk when an iteration ends.

    Args:
        run_dir: where ``metrics.jsonl`` lies.
        loggers: they get the numbers too.
    """

    def __init__(self, run_dir: Path, loggers: RunLoggers) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._loggers = loggers
        self._since = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write row 0: the validation before the first iteration."""
        if trainer.state.fn == "validate":
            self._write(trainer, cast("PolicyModule", pl_module), 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin where the checkpoint ended."""
        if trainer.is_global_zero:
            go_back(self._path.parent, cast("PolicyModule", pl_module).iteration)
        self._since = time.perf_counter()
        _idle_shares(trainer)  # what came before is no iteration's

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the row of a finished iteration."""
        module = cast("PolicyModule", pl_module)
        now = time.perf_counter()
        module.recorder.record("time/total", now - self._since)
        for name, share in _idle_shares(trainer).items():
            module.recorder.record(name, share)
        module.recorder.record("policy/entropy", module.policy_entropy)
        module.recorder.record("policy/lr", float(trainer.optimizers[0].param_groups[0]["lr"]))
        self._since = now
        self._write(trainer, module, module.iteration)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Log what is not logged yet: Lightning closes the loggers next, also after the first validation."""
        self._loggers.wait()

    def _write(self, trainer: L.Trainer, module: PolicyModule, iteration: int) -> None:
        record = module.recorder.flush()
        numbers = record.numbers
        if "rollout/tokens" in numbers:
            busy = numbers["time/total"] - numbers.get("time/validate", 0.0)
            numbers["throughput/tokens_per_second"] = numbers["rollout/tokens"] / busy
        module.report = record
        if not trainer.is_global_zero:
            return
        row = {"iteration": iteration, "step": trainer.global_step}
        with self._path.open("a") as file:
            file.write(
                as_line(row | {n: v if math.isfinite(v) else None for n, v in sorted(numbers.items())})
            )
            file.flush()
            os.fsync(file.fileno())
        self._loggers.write(record, iteration)


def _idle_shares(trainer: L.Trainer) -> dict[str, float]:
    """Return the shares of idle time since the last call, and begin anew."""
    datamodule = cast("RolloutDataModule | None", trainer.datamodule)  # type: ignore[attr-defined]
    return datamodule.idle.shares() if datamodule else {}
