"""What training has spent by an iteration: the x axes of the curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ecrl.analysis import Floats
from ecrl.report.runs import Arm, Run

#: Name of each x axis on the page, and what it counts.
CLOCKS = {
    "iterations": "iteration",
    "tokens": "response tokens drawn",
    "hours": "hours of iterations and validation",
}
_RATES = {"tokens": "rollout/tokens", "hours": "time/total"}


def clocks(arms: Sequence[Arm]) -> list[str]:
    """Return the x axes that every run has the numbers for."""
    runs = [run for arm in arms for run in arm.runs.values()]
    return [clock for clock in CLOCKS if all(np.isfinite(spent(run, clock)).all() for run in runs)]


def spent(run: Run, clock: str) -> Floats:
    """Return what a run had spent at the end of each of its iterations: ``[T]`` iterations, tokens or hours.

    What a fork's parent had spent on the checkpoint is counted too; NaN if that is not on record. Hours count
    the validation before the first iteration, but neither start-up nor warm start. NaN from the
    first iteration that did not log it.
    """
    if clock == "iterations":
        return run.counted.astype(float)
    absent = np.full(len(run.iteration), np.nan)
    rate = run.columns.get(_RATES[clock], absent)
    before = np.nan_to_num(run.columns.get("time/validate", absent)) if clock == "hours" else 0.0
    total: Floats = np.cumsum(np.where(run.iteration > 0, rate, before))
    return spent_before(run, clock) + (total / 3600 if clock == "hours" else total)


def spent_before(run: Run, clock: str) -> float:
    """Return what had been spent on the checkpoint that a run began with; 0 if it began with the model."""
    if clock == "iterations" or not run.before:
        return float(run.before)
    parent, at = (run.fork.parent, run.fork.iteration) if run.fork else (None, 0)
    if parent is None or parent.last < at:
        return float("nan")
    return float(np.interp(at, parent.iteration, spent(parent, clock)))


def spent_by(arm: Arm, clock: str, iteration: ArrayLike) -> Floats:
    """Return what an arm had spent by some iterations ``[n]``: the mean over its seeds."""
    runs, at = arm.runs.values(), np.asarray(iteration, float)
    values: Floats = np.mean([np.interp(at, run.counted, spent(run, clock)) for run in runs], axis=0)
    return values


def spent_before_by(arm: Arm, clock: str) -> float:
    """Return what had been spent on the checkpoints that an arm began with: the mean over its seeds."""
    return float(np.mean([spent_before(run, clock) for run in arm.runs.values()]))
