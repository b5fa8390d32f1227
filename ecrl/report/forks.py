"""What a report says of runs that began with another run's checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence

from ecrl.report.clocks import CLOCKS, clocks, spent_before
from ecrl.report.runs import Arm, Run
from ecrl.runs.metrics_file import legible


def ancestors(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that another one was forked from, directly or not."""
    found, open_runs = set(), list(runs)
    while open_runs:
        if fork := open_runs.pop().fork:
            found.add(os.path.realpath(fork.parent.path if fork.parent else fork.run_dir))
            open_runs += [fork.parent] if fork.parent else []
    return [run for run in runs if os.path.realpath(run.path) in found]


def origin(arms: Sequence[Arm], arm: Arm) -> str | None:
    """Say with which checkpoint an arm began, as curves count iterations; None if it is no fork."""
    run = next(iter(arm.runs.values()))
    if run.fork is None:
        return None
    parent = run.fork.parent.path if run.fork.parent else run.fork.run_dir
    names = [
        a.name for a in arms for r in a.runs.values() if os.path.realpath(r.path) == os.path.realpath(parent)
    ]
    return f"{(names or [legible(parent.name)])[0]} at iteration {run.before or run.fork.iteration}"


def fork_notes(arms: Sequence[Arm]) -> Iterator[str]:
    """Yield what a reader must know of the forks among the arms, a sentence each."""
    forks = [(arm, began) for arm in arms if (began := origin(arms, arm))]
    if forks and len(arms) == len(arms[0].runs) == 1:
        yield f"This run is a fork of {forks[0][1]}. Its iterations are counted from there."
        return
    for arm, began in forks:
        yield (
            f"{arm.name} is a fork of {began}: its curves begin there. Its first validation draws answers of "
            "the same weights anew, so that it differs from the other run's by chance."
        )
    runs = [run for arm, _ in forks for run in arm.runs.values()]
    if any(math.isnan(spent_before(run, clock)) for run in runs for clock in CLOCKS):
        yield (
            "What was spent before a fork is not on record: curves are over "
            f"{' and '.join(clocks(arms))} only."
        )
