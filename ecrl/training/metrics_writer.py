"""Writes every iteration's numbers to TensorBoard and to ``metrics.jsonl``, under the same names."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from torch.utils.tensorboard.summary import scalar

from ecrl.runs.checkpoints import go_back
from ecrl.runs.metrics_file import as_line
from ecrl.training.background import Background
from ecrl.training.glossary import OVERVIEW, meaning

if TYPE_CHECKING:
    from ecrl.training.datamodule import RolloutDataModule
    from ecrl.training.module import PolicyModule

LAYOUT = {
    "overview": {name.partition("/")[2]: ["Multiline", [f"{name}$"]] for name in OVERVIEW},
    "entropy": {
        "policy entropy": ["Multiline", ["policy/entropy$"]],
        "strategy coefficients": ["Multiline", ["strategy/.*/coefficient"]],
        "strategy fractions": ["Multiline", ["strategy/.*/fraction"]],
    },
    "law": {
        "predicted ceiling": ["Margin", ["law/ceiling", "law/ceiling_low", "law/ceiling_high"]],
        "spent and reached": ["Multiline", ["law/entropy_spent", "law/gain_reached"]],
    },
    "covariance": {
        "mean": ["Multiline", ["cov/mean"]],
        "quantiles": ["Multiline", ["cov/q.*"]],
        "top shares": ["Multiline", ["cov/top_.*"]],
        "by accuracy of the prompt": ["Multiline", ["cov/accuracy_.*"]],
        "of responses, by accuracy": ["Multiline", ["cov/group/.*"]],
    },
    "dynamics": {
        "measured, predicted": ["Multiline", ["dynamics/measured", "dynamics/by_logits"]],
        "correlation": ["Multiline", ["dynamics/correlation_.*"]],
        "slope": ["Multiline", ["dynamics/slope_.*"]],
    },
    "reward": {
        "training": ["Multiline", ["rollout/reward$"]],
        "validation": ["Multiline", ["val/.*/avg@.*", "val/.*/greedy", "val/.*/maj@.*"]],
        "pass@k": ["Multiline", ["val/.*/pass@.*"]],
        "length": ["Multiline", ["rollout/length$", "val/.*/length"]],
    },
    "update": {
        "ratio": ["Multiline", ["policy/ratio"]],
        "clipped": ["Multiline", ["policy/clip_.*"]],
        "KL to the behaviour policy": ["Multiline", ["policy/kl_behaviour"]],
        "gradient norm": ["Multiline", ["policy/grad_norm"]],
        "engine against trainer": ["Multiline", ["mismatch/.*"]],
    },
    "time": {
        "seconds an iteration": ["Multiline", ["time/(?!.*_idle).*"]],
        "idle share": ["Multiline", ["time/.*_idle"]],
        "tokens a second": ["Multiline", ["throughput/.*"]],
    },
}


MOST_FIGURES = 8  # that wait to be drawn


class MetricsWriter(L.Callback):
    """Closes each iteration's record. Callbacks that read ``module.report`` come after it.

    Training does not wait for figures, which take some tenths of a second each. Rows are on disk when an
    iteration ends.

    Args:
        run_dir: where ``metrics.jsonl`` lies.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._since = time.perf_counter()
        self._new = True
        self._described: set[str] = set()
        self._figures = Background(MOST_FIGURES)

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

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw what is not drawn yet, before the logger closes."""
        self._figures.close()

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
        if trainer.logger is None:
            return
        logger: Any = trainer.logger
        board = logger.experiment
        if self._new:
            board.add_custom_scalars(LAYOUT)
            self._new = False
        for name, value in (numbers | _overview(numbers)).items():
            self._add_scalar(board, name, value, iteration)
        for name, values in record.histograms.items():
            board.add_histogram(name, values, iteration)
        for name, markdown in record.texts.items():
            board.add_text(name, markdown, iteration)
        for name, figure in record.figures.items():
            self._figures.submit(board.add_figure, name, figure, iteration)

    def _add_scalar(self, board: Any, name: str, value: float, iteration: int) -> None:
        """Write a number; the first of a name carries its meaning, which TensorBoard shows."""
        summary = scalar(name, value)  # type: ignore[no-untyped-call]
        if name not in self._described:
            self._described.add(name)
            summary.value[0].metadata.summary_description = meaning(name) or ""
        board._get_file_writer().add_summary(summary, iteration)  # as its add_scalar does


def _idle_shares(trainer: L.Trainer) -> dict[str, float]:
    """Return the shares of idle time since the last call, and begin anew."""
    datamodule = cast("RolloutDataModule | None", trainer.datamodule)  # type: ignore[attr-defined]
    return datamodule.idle.shares() if datamodule else {}


def _overview(numbers: dict[str, float]) -> dict[str, float]:
    """Return the most important numbers once more, under names of their own."""
    return {name: numbers[source] for name, source in OVERVIEW.items() if source in numbers}
