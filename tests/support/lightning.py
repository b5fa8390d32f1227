"""A Lightning module of one weight under a real trainer, for callbacks that log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ecrl.metrics import MetricsRecorder, Record
from ecrl.training.loggers.run_loggers import RunLoggers
from ecrl.training.loggers.tensorboard import TensorBoard
from ecrl.training.metrics_writer import MetricsWriter
from ecrl.training.module import finished_iterations


class Tiny(L.LightningModule):
    """One weight; what it reports depends on the iteration and on the weight alone."""

    automatic_optimization = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.recorder = MetricsRecorder()
        self.report = Record()
        self.policy_entropy = float("nan")

    @property
    def iteration(self) -> int:
        return finished_iterations(self.trainer)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.25)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        (self.weight**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.recorder.record("policy/weight", float(self.weight.detach()))
        self.recorder.record("rollout/reward", self.iteration + 0.5)
        self.recorder.record("rollout/tokens", 600.0)
        self.recorder.record("rollout/groups", 4)
        self.recorder.record("rollout/groups_trained", 3)
        if self.iteration == 1:
            self.recorder.record("policy/broken", float("inf"))
            self.recorder.histogram("cov/tokens", torch.arange(4.0))
            self.recorder.text("samples", "| a |\n|---|\n| b |")
        self.policy_entropy = 1.0 / (self.iteration + 1)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        with self.recorder.timer("validate"):
            self.recorder.record("val/task/greedy", float(self.weight.detach()))


def fit(run_dir: Path, epochs: int, *more: L.Callback, resume: int = 0, validate: bool = False) -> L.Trainer:
    """Train two optimizer steps an iteration; leave a checkpoint behind."""
    run_dir.mkdir(exist_ok=True)
    board = TensorBoard(run_dir=run_dir, done=resume)
    with RunLoggers([board]) as loggers:
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=board,
            callbacks=[MetricsWriter(run_dir, loggers), *more],
            limit_val_batches=1.0 if validate else 0,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
        )
        module, data = Tiny(), DataLoader([0, 1])  # type: ignore[arg-type, var-annotated]
        if validate and not resume:
            trainer.validate(module, data, verbose=False)
        path = run_dir / f"{resume}.ckpt" if resume else None
        trainer.fit(module, data, data if validate else None, ckpt_path=path)
    trainer.save_checkpoint(run_dir / f"{epochs}.ckpt")
    return trainer
