"""``logger=[csv]``: a table, ``csv/metrics.csv`` in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from csv import DictReader
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

from ecrl.training.loggers.base import RunLogger


class Csv(RunLogger, CSVLogger):
    """A row an iteration and a column a metric; the configuration in ``csv/hparams.yaml``.

    The column ``step`` is Lightning's name of the same number as ``iteration``.

    Args:
        run_dir: the run's folder.
        done: number of iterations that are logged already; later rows are dropped.
    """

    def __init__(self, *, run_dir: Path, done: int) -> None:
        super().__init__(run_dir, name="", version="csv", flush_logs_every_n_steps=1)
        earlier = _rows(run_dir / "csv" / "metrics.csv", done)  # Lightning deletes the file
        if earlier:
            self.experiment.metrics.extend(earlier)
            self.save()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row."""
        row: dict[str, Any] = {"iteration": step, **metrics}
        super().log_metrics(row, step)


def _rows(path: Path, done: int) -> list[dict[str, Any]]:
    """Return the rows up to an iteration, without empty cells."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in DictReader(file)]
    return [row for row in rows if int(row["step"]) <= done]
