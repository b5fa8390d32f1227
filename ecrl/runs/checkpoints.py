"""The checkpoints of a run on disk: a folder each, ``checkpoints/ITERATION``, whole as soon as it is there.

Which one is the best is not written down: it is read from the run's metrics.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ecrl.config.schema import CheckpointConfig
from ecrl.errors import UsageError
from ecrl.runs.manifest import check_manifest
from ecrl.runs.metrics_file import drop_after, read_metrics
from ecrl.runs.rollouts import drop_rollouts_after

REMOVED = ".removed"


def folder_of(run_dir: Path, iteration: int) -> Path:
    """Return the folder of an iteration's checkpoint."""
    return run_dir / "checkpoints" / str(iteration)


def iteration_of(folder: Path) -> int:
    """Return the number of iterations that the run of a checkpoint had completed."""
    return int(folder.name)


def saved_iterations(run_dir: Path) -> list[int]:
    """Return the iterations that have a checkpoint, in order."""
    return sorted(int(p.name) for p in (run_dir / "checkpoints").glob("*") if p.name.isdecimal())


def best_iteration(run_dir: Path, metric: str | None) -> int | None:
    """Return the first of the checkpoints with the highest value of a metric; None if none has a value."""
    if metric is None or not (saved := set(saved_iterations(run_dir))):
        return None
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["iteration"] in saved]
    values = {int(row["iteration"]): row[metric] for row in rows if row.get(metric) is not None}
    return max(values, key=lambda iteration: (values[iteration], -iteration), default=None)


def is_best(run_dir: Path, metric: str | None, iteration: int) -> bool:
    """Whether an iteration was validated and is better than all that have a checkpoint."""
    if metric is None:
        return False
    rows = read_metrics(run_dir / "metrics.jsonl")
    values = {int(row["iteration"]): row[metric] for row in rows if row.get(metric) is not None}
    best = best_iteration(run_dir, metric)
    return iteration in values and (best is None or values[iteration] > values[best])


def kept(saved: Sequence[int], best: int | None, settings: CheckpointConfig) -> set[int]:
    """Return the iterations whose checkpoints stay: the last ones, the best, and those kept for good."""
    every = settings.keep_every
    for_good = {iteration for iteration in saved if every and iteration % every == 0}
    return {*saved[-settings.keep :], *for_good, *([best] if best is not None else [])}


def prune(run_dir: Path, settings: CheckpointConfig) -> None:
    """Delete the checkpoints that do not stay, and what an earlier deletion left."""
    saved = saved_iterations(run_dir)
    stay = kept(saved, best_iteration(run_dir, settings.best), settings)
    for iteration in saved:
        if iteration not in stay:
            remove(folder_of(run_dir, iteration))
    for rest in (run_dir / "checkpoints").glob(f"*{REMOVED}"):
        shutil.rmtree(rest, ignore_errors=True)


def go_back(run_dir: Path, iteration: int) -> None:
    """Delete checkpoints, rollouts and rows of metrics after the iteration with which a run goes on."""
    for later in reversed(saved_iterations(run_dir)):  # so that at any moment rows reach the last checkpoint
        if later > iteration:
            remove(folder_of(run_dir, later))
    drop_rollouts_after(run_dir, iteration)
    drop_after(run_dir / "metrics.jsonl", iteration)


def remove(folder: Path) -> None:
    """Delete a checkpoint; at any moment it is there whole or under another name."""
    aside = folder.with_name(folder.name + REMOVED)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def find_checkpoint(run_dir: Path, which: str = "last", metric: str | None = None) -> Path:
    """Return a checkpoint of a run, after checking every byte of it.

    Raises:
        UsageError: there is none, or it is damaged.
    """
    folder = choose_checkpoint(run_dir, which, metric)
    check_manifest(folder)
    return folder


def choose_checkpoint(run_dir: Path, which: str = "last", metric: str | None = None) -> Path:
    """Return the folder of a checkpoint of a run.

    Args:
        run_dir: the run.
        which: ``last``, ``best`` or an iteration.
        metric: by which the best is chosen.

    Raises:
        UsageError: there is none.
    """
    saved = saved_iterations(run_dir)
    if not saved:
        raise UsageError(
            f"{run_dir} has no checkpoint (checkpoints/ITERATION in it); begin anew in another folder."
        )
    iteration = (
        best_iteration(run_dir, metric) if which == "best" else saved[-1] if which == "last" else int(which)
    )
    if iteration is None:
        raise UsageError(
            f"{run_dir} has no best checkpoint: none of {_listed(saved)} was validated by {metric}; take "
            "checkpoint=last or one of these."
        )
    if iteration not in saved:
        raise UsageError(f"{run_dir} has no checkpoint of iteration {iteration}; it has {_listed(saved)}.")
    return folder_of(run_dir, iteration)


def _listed(iterations: Sequence[int]) -> str:
    return ", ".join(map(str, iterations))
