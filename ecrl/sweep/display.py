"""Shows how far a sweep is, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecrl.sweep.definition import Cell
from ecrl.sweep.running import Work, is_finished, iterations_done


class Display:
    """One progress bar for all iterations of all cells, and one for each running cell.

    Args:
        cells: all cells of the sweep.
        waiting: number of cells that are not finished.
    """

    def __init__(self, cells: Sequence[Cell], waiting: int) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False)
        # Without a thread that redraws it: processes are forked from this one.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        total = sum(cell.iterations for cell in cells)
        self._ready = {cell.name: cell.iterations for cell in cells if is_finished(cell)}
        self._all = self._progress.add_task(
            "all iterations", total=total, completed=sum(self._ready.values())
        )
        self._tasks: dict[str, Any] = {}
        self.say(f"{len(cells)} cells, {len(cells) - waiting} finished before")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text)

    def look(self, running: Sequence[Work]) -> None:
        """Update the bars from the metrics of the running cells."""
        now = {work.cell.name: iterations_done(work.cell.run_dir) for work in running}
        for work in running:
            if work.cell.name not in self._tasks:
                task = self._progress.add_task(work.cell.name, total=work.cell.iterations)
                self._tasks[work.cell.name] = task
            self._progress.update(self._tasks[work.cell.name], completed=now[work.cell.name])
        for name in [n for n in self._tasks if n not in now]:
            self._progress.remove_task(self._tasks.pop(name))
        self._ready |= now
        self._progress.update(self._all, completed=sum(self._ready.values()))
        if self._console.is_terminal:
            self._progress.refresh()
