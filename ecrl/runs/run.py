"""A run on disk, as Python sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecrl.config.compose import as_object
from ecrl.config.resume import saved_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError, name_message
from ecrl.runs.metrics_file import read_metrics, read_summary


@dataclass(frozen=True)
class Run:
    """A run; all but its folder is read from there whenever it is asked for, also while it goes on.

    Attributes:
        dir: its folder.
    """

    dir: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``, one an iteration, each a metric's value by its name.

        Raises:
            UsageError: there are none, or they cannot be read.
        """
        return read_metrics(self.dir / "metrics.jsonl")

    @property
    def last(self) -> dict[str, Any]:
        """The last row of metrics."""
        rows = self.metrics
        return rows[-1] if rows else {}

    @property
    def iterations(self) -> int:
        """Number of finished iterations."""
        return int(self.last.get("iteration", 0))

    @property
    def stopped_by(self) -> str | None:
        """Name of the signal that stopped it early; None otherwise."""
        return (read_summary(self.dir) or {}).get("stopped_by")

    @property
    def config(self) -> Config:
        """The configuration that it began with.

        Raises:
            UsageError: it cannot be read.
        """
        return as_object(saved_config(self.dir / "config.yaml"))

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Return the iterations that have a metric, and its values: ``plot(*run.curve("policy/entropy"))``.

        Raises:
            UsageError: no iteration has it; names the nearest.
        """
        rows = self.metrics
        points = [(int(row["iteration"]), float(row[name])) for row in rows if row.get(name) is not None]
        if not points:
            raise UsageError(
                name_message(f"metric of {self.dir}", name, {key for row in rows for key in row})
            )
        return [x for x, _ in points], [y for _, y in points]


def load_run(path: Path | str) -> Run:
    """Return the run in a folder, finished or not.

    Raises:
        UsageError: the folder holds no run.
    """
    run_dir = Path(path).expanduser()
    if not (run_dir / "config.yaml").is_file():
        raise UsageError(f"{str(path)!r} is not a run directory: {run_dir / 'config.yaml'} is missing.")
    return Run(run_dir)
