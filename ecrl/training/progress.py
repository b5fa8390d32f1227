"""A progress bar over iterations; plain lines with the time where there is no terminal."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecrl.config.eval_sets import VALIDATION_MEAN
from ecrl.runs.run_log import RunLog

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule

#: Seconds: a plain line comes at least as often, and in the log file as well.
SILENCE = 30.0
#: What the line shows of an iteration: label, metric and format.
_SHOWN = (
    ("reward", "rollout/reward", "{:.3f}"),
    ("val", VALIDATION_MEAN, "{:.3f}"),
    ("entropy", "policy/entropy", "{:.3f}"),
    ("cut off", "rollout/truncated", "{:.0%}"),
)


class ProgressMonitor(L.Callback):
    """Shows reward, validation, entropy, the share of truncated responses, and the time left.

    Args:
        log: where plain lines go; beside a bar they are noted only.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
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
        self._task = self._bar.add_task("")
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self._last_line = time.monotonic()
        self._validation = float("nan")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin to say at least every ``SILENCE`` seconds what goes on, even within an iteration."""
        if not trainer.is_global_zero:
            return
        self._last_line = time.monotonic()
        self._ended.clear()
        watched = (trainer, pl_module, stage)
        self._heart = threading.Thread(target=self._beat, args=watched, name="progress", daemon=True)
        self._heart.start()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the result of the validation before the first iteration."""
        if trainer.state.fn == "validate":
            self._keep_validation(cast("PolicyModule", pl_module))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin where the run begins or goes on."""
        done = cast("PolicyModule", pl_module).iteration
        self._begun = done, time.monotonic()
        self._bar.update(self._task, total=trainer.max_epochs, completed=done)
        if self._console.is_terminal and trainer.is_global_zero:
            self._bar.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the finished iteration."""
        module = cast("PolicyModule", pl_module)
        done, total = module.iteration, trainer.max_epochs or 0
        self._keep_validation(module)
        text = self._line(module)
        self._bar.update(self._task, completed=done, description=text)
        # A line of numbers comes before the next iteration would be silent for too long.
        silent = time.monotonic() - self._last_line + module.report.numbers["time/total"]
        due = silent >= SILENCE or done == total or done == self._begun[0] + 1
        if due and trainer.is_global_zero:
            self._say(f"iteration {done}/{total}  {text}  left {self._time_left(done, total)}")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the terminal back."""
        self._end()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back; Lightning calls no ``teardown`` after an error."""
        self._end()

    def _end(self) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        if self._bar.live.is_started:  # without a terminal, stopping prints an empty line
            self._bar.stop()

    def _line(self, module: PolicyModule) -> str:
        numbers = {**module.report.numbers, VALIDATION_MEAN: self._validation}
        parts = [
            f"{label} {form.format(numbers[name])}"
            for label, name, form in _SHOWN
            if numbers.get(name, float("nan")) == numbers.get(name)
        ]
        parts.append(f"groups {numbers['rollout/groups_trained']:.0f}/{numbers['rollout/groups']:.0f}")
        return "  ".join([*parts, f"{numbers['time/total']:.2f} s/it"])

    def _keep_validation(self, module: PolicyModule) -> None:
        self._validation = module.report.numbers.get(VALIDATION_MEAN, self._validation)

    def _time_left(self, done: int, total: int) -> str:
        before, since = self._begun
        seconds = (time.monotonic() - since) / (done - before) * (total - done)
        return str(timedelta(seconds=round(seconds)))

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._log.note(line)
        else:
            self._log.say_timed(line)

    def _beat(self, trainer: L.Trainer, module: PolicyModule, stage: str) -> None:
        """Run in a thread of its own."""
        while not self._ended.wait(max(self._last_line + SILENCE - time.monotonic(), 0.05)):
            if time.monotonic() - self._last_line < SILENCE:
                continue
            what = module.recorder.current or "at work"
            where = "first validation" if stage == "validate" else f"iteration {module.iteration + 1}"
            self._say(f"{where}: {what}")
