"""The packed figures of a sweep: what is read from them, a run at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecrl.analysis.points import ENTROPY, pair
from ecrl.analysis.series import Series

#: Columns ``[T]`` of a run, by name; NaN where not measured.
Run = Mapping[str, NDArray[np.float64]]
#: Runs by arm and seed.
Runs = Mapping[str, Mapping[int, Run]]
#: A number of each seed.
Values = Mapping[int, float]
#: The columns of the file that the tables take, by their names in it.
COLUMNS = {
    ENTROPY: "entropy",
    "cov/mean": "covariance",
    "cov/top_2%": "covariance_top",
    "even": "even",
    "odd": "odd",
    "iteration": "iteration",
}
#: The same of the validation's, by their ends.
VALIDATION = {"/avg@16": "avg", "/pass@16": "pass"}
LAST = 0.2  # share of the iterations that "at the end" means


def read(path: Path) -> dict[str, dict[int, Run]]:
    """Return the columns of each run, by arm and seed, in the order of the file."""
    table = pq.read_table(path)
    arms, seeds = (table[name].to_numpy() for name in ("arm", "seed"))
    names = {n: short for n in table.column_names if (short := _short(n))}
    values = {short: table[name].to_numpy().astype(float) for name, short in names.items()}
    runs: dict[str, dict[int, Run]] = {}
    for arm, seed in dict.fromkeys(zip(arms, seeds.tolist(), strict=True)):
        here = (arms == arm) & (seeds == seed)
        runs.setdefault(arm, {})[seed] = {name: column[here] for name, column in values.items()}
    return runs


def _short(name: str) -> str | None:
    of_validation = (short for end, short in VALIDATION.items() if name.endswith(end))
    return COLUMNS.get(name) or next(of_validation, None)


def of_seeds(runs: Mapping[int, Run], measure: Callable[[Run], float]) -> dict[int, float]:
    """Measure the run of each seed."""
    return {seed: measure(run) for seed, run in runs.items()}


def measured(run: Run, name: str) -> NDArray[np.float64]:
    """Return the values of a column, in the order of training."""
    return run[name][np.isfinite(run[name])]


def at_the_end(name: str) -> Callable[[Run], float]:
    """Measure the mean of a column over the last fifth of the iterations."""
    return lambda run: float(np.nanmean(run[name][run["iteration"] > (1 - LAST) * run["iteration"][-1]]))


def points(run: Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return entropy and avg@16 ``[n]`` of the validations, in the order of training.

    A validation follows the update of its iteration, so the entropy is that of the next rollout.
    """
    columns = {ENTROPY: run["entropy"], "val/avg@16": run["avg"]}
    found = pair(Series(Path("run"), run["iteration"].astype(np.int64), columns), "val/avg@16")
    return found.entropy, found.reward
