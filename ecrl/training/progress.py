"""A progress bar over iterations; plain lines where there is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule

PLAIN_EVERY = 10  # iterations between lines without a terminal


class ProgressMonitor(L.Callback):
    """Shows reward, entropy, seconds an iteration and the time left."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=3600,  # seconds; the time left needs two iterations within it
        )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin where the run begins or goes on."""
        self._task = self._bar.add_task("", total=trainer.max_epochs)
        self._bar.update(self._task, completed=cast("PolicyModule", pl_module).iteration)
        if self._console.is_terminal and trainer.is_global_zero:
            self._bar.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the finished iteration."""
        module = cast("PolicyModule", pl_module)
        numbers = module.report.numbers
        text = (
            f"reward {numbers['rollout/reward']:.3f}  entropy {numbers['policy/entropy']:.3f}  "
            f"groups {numbers['rollout/groups_trained']:.0f}/{numbers['rollout/groups']:.0f}  "
            f"{numbers['time/total']:.2f} s/it"
        )
        self._bar.update(self._task, completed=module.iteration, description=text)
        due = module.iteration % PLAIN_EVERY == 0 or module.iteration == trainer.max_epochs
        if due and not self._console.is_terminal and trainer.is_global_zero:
            print(f"iteration {module.iteration}/{trainer.max_epochs}  {text}", flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the terminal back, however the run ended."""
        if self._bar.live.is_started:  # without a terminal, stopping prints an empty line
            self._bar.stop()
