"""The numbers of a report: curves, final figures, fitted laws."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecrl.analysis import Floats
from ecrl.analysis.law import Law, fit_law
from ecrl.analysis.points import Points, is_validation, pair, smooth
from ecrl.analysis.series import Series
from ecrl.analysis.stats import Band, Interval, band, interval, paired
from ecrl.config.eval_sets import VALIDATION_MEAN
from ecrl.errors import UsageError, unknown_name
from ecrl.report.forks import ancestors, fork_notes
from ecrl.report.runs import ENTROPY, REWARD, Arm, Run

CONFIDENCE = 0.95
#: A final figure is the mean over this last share of the iterations.
FINAL = 0.2
#: A training curve is a trailing mean over this share of the iterations.
SMOOTH = 1 / 15
#: A comparison of more arms than this has an atlas.
MANY = 12
_AT = re.compile(r"val/(.+)/(avg|pass)@(\d+)")


@dataclass(frozen=True)
class Curve:
    """A metric of an arm over iterations, with its band over seeds.

    Attributes:
        iteration: ``[T]``, those at which any seed measured it.
        band: mean and interval over seeds, ``[T]`` each.
    """

    iteration: NDArray[np.int64]
    band: Band


@dataclass(frozen=True)
class Plane:
    """An arm's points (H, R), and the laws fitted to them.

    Attributes:
        entropy: ``[n]`` nats, of all seeds.
        reward: ``[n]``, of all seeds.
        laws: by seed, fitted to its own points.
        reasons: why a seed has no law, a sentence each.
        most: points of the seed that has most.
    """

    entropy: Floats
    reward: Floats
    laws: dict[int, Law]
    reasons: list[str]
    most: int


@dataclass(frozen=True)
class Comparison:
    """Arms, compared up to the last iteration that all runs have.

    A fork's iterations are counted on from those of its parent, so that all curves have one axis.

    Attributes:
        arms: the baseline first.
        iterations: the last iteration that is compared. A run that was forked may end before it.
        notes: what a reader must know about the data, a sentence each.
    """

    arms: list[Arm]
    iterations: int
    notes: list[str]

    @property
    def runs(self) -> list[Run]:
        """The runs of all arms."""
        return [run for arm in self.arms for run in arm.runs.values()]

    @property
    def alone(self) -> Run | None:
        """The run, if there is only one."""
        return self.runs[0] if len(self.runs) == 1 else None

    @property
    def numbered(self) -> list[tuple[int, Arm]]:
        """The arms with the numbers of their colours; 0 is the baseline, which one arm alone is not."""
        return list(enumerate(self.arms, start=int(len(self.arms) == 1)))

    @property
    def names(self) -> list[str]:
        """Names of the metrics that some run has."""
        return sorted({n for run in self.runs for n, v in run.columns.items() if np.isfinite(v).any()})

    @property
    def tasks(self) -> list[str]:
        """Short names of the validated environments."""
        return sorted({m[1] for n in self.names if (m := _AT.fullmatch(n))})

    @property
    def means(self) -> list[str]:
        """Name of the mean over several validation sets, where there are several."""
        return [VALIDATION_MEAN] if len(self.tasks) > 1 and VALIDATION_MEAN in self.names else []

    @property
    def width(self) -> int:
        """Number of iterations in the trailing mean of a training curve."""
        return max(round(SMOOTH * self.iterations), 1)

    def ks(self, task: str, kind: str = "pass") -> list[int]:
        """Return the k of ``val/<task>/<kind>@k``, ascending."""
        found = (m for n in self.names if (m := _AT.fullmatch(n)))
        return sorted(int(m[3]) for m in found if m[1] == task and m[2] == kind)

    def curve(self, arm: Arm, name: str) -> Curve | None:
        """Return a metric's band over an arm's seeds; training metrics as trailing means."""
        found = [self.measured(run, name) for run in arm.runs.values()]
        found = [(t, v) for t, v in found if len(t)]
        if not found:
            return None
        times = np.unique(np.concatenate([t for t, _ in found]))
        values = np.full((len(found), len(times)), np.nan)
        for row, (t, v) in zip(values, found, strict=True):
            row[np.searchsorted(times, t)] = v if name.startswith("val/") else smooth(v, self.width)
        return Curve(times, band(values, CONFIDENCE))

    def finals(self, arm: Arm, name: str) -> dict[int, float]:
        """Return a metric's mean over the last ``FINAL`` of the iterations, by seed.

        They end with the run, if it ends before the others.
        """
        result = {}
        for seed, run in arm.runs.items():
            t, v = self.measured(run, name)
            missing = max(self.iterations - run.end, 0)
            late = v[(t > (1 - FINAL) * self.iterations - missing) & (t > run.before)]
            if len(late):
                result[seed] = float(late.mean())
        return result

    def final(self, arm: Arm, name: str) -> Interval | None:
        """Return the interval of the final figure over seeds."""
        values = list(self.finals(arm, name).values())
        return interval(values, CONFIDENCE) if values else None

    def gain(self, arm: Arm, name: str) -> Interval | None:
        """Return the interval of the final figure minus the baseline's, paired by seed."""
        return paired(self.finals(arm, name), self.finals(self.arms[0], name), CONFIDENCE)

    def start(self, run: Run, name: str) -> float:
        """Return a validation before the run's first iteration, or the mean of the first ``width`` values.

        NaN where it was not measured.
        """
        t, v = self.measured(run, name)
        first = v[:1] if name.startswith("val/") else v[t > run.before][: self.width]
        is_there = len(first) and (not name.startswith("val/") or t[0] == run.before)
        return float(first.mean()) if is_there else float("nan")

    def starts(self, runs: Iterable[Run], name: str) -> Interval | None:
        """Return the interval, over runs, of a validation before their first iterations."""
        values = [self.start(run, name) for run in runs if name.startswith("val/")]
        values = [v for v in values if np.isfinite(v)]
        return interval(values, CONFIDENCE) if values else None

    def before_rl(self, name: str) -> Interval | None:
        """Return the interval of a validation of the models that the baseline, or its parent, began with."""
        return self.starts([first for run in self.arms[0].runs.values() if (first := run.origin)], name)

    def measured(self, run: Run, name: str) -> tuple[NDArray[np.int64], Floats]:
        """Return the iterations at which a metric was measured, and its values."""
        values = run.columns.get(name, np.full(len(run.iteration), np.nan))
        kept = np.isfinite(values) & (run.counted <= self.iterations)
        return run.counted[kept], values[kept]

    def law_reward(self) -> str:
        """Return the metric R of the H–R plane: the validation's avg@k, or else the training reward.

        Of several sets it is the mean.
        """
        for mean in self.means:
            return mean
        for task in self.tasks:
            for k in reversed(self.ks(task, "avg")):
                return f"val/{task}/avg@{k}"
        return REWARD

    def plane(self, arm: Arm, reward: str) -> Plane:
        """Return the points and laws of an arm."""
        points, laws, reasons = [], {}, []
        for seed, run in arm.runs.items():
            try:
                points.append(self._points(run, reward))
                laws[seed] = fit_law(points[-1].entropy, points[-1].reward)
            except ValueError as error:
                reasons.append(f"seed {seed}: {error}")
        h = np.concatenate([np.empty(0), *(p.entropy for p in points)])
        r = np.concatenate([np.empty(0), *(p.reward for p in points)])
        return Plane(h, r, laws, reasons, max((len(p.entropy) for p in points), default=0))

    def _points(self, run: Run, reward: str) -> Points:
        """Return a run's points up to the last compared iteration.

        Training rewards are means over iterations that do not overlap, so that their errors are independent.
        """
        kept = run.counted <= self.iterations
        columns = {name: run.columns[name][kept] for name in (ENTROPY, reward) if name in run.columns}
        width = 1 if is_validation(reward) else self.width
        return pair(Series(run.path, run.iteration[kept], columns), reward, width=width)


def ceiling_of(laws: Mapping[int, Law]) -> Interval:
    """Return the interval of the ceiling over seeds; for one seed, the interval of its own fit."""
    if len(laws) > 1:
        return interval([law.ceiling for law in laws.values()], CONFIDENCE)
    (law,) = laws.values()
    low, high = law.ceiling_interval
    return Interval(law.ceiling, low, high, 1)


def compare(arms: list[Arm], baseline: str | None) -> Comparison:
    """Put the baseline first and cut all runs at the shortest, but not a fork at the end of its parent.

    Raises:
        UsageError: no such arm, or a fork that begins where another run has ended.
    """
    names = [arm.name for arm in arms]
    if baseline is not None:
        if baseline not in names:
            raise unknown_name("arm", baseline, names)
        arms = sorted(arms, key=lambda arm: arm.name != baseline)
    runs = [run for arm in arms for run in arm.runs.values()]
    if len(runs) == 1:  # nothing to count on from
        runs = [replace(runs[0], before=0)]
        arms = [Arm(arms[0].name, {runs[0].seed: runs[0]})]
    forked = ancestors(runs)
    tips = [run for run in runs if all(run is not parent for parent in forked)]
    shortest, longest = (f(tips, key=lambda run: run.end) for f in (min, max))
    for run in runs:
        if run.before >= shortest.end:
            raise UsageError(
                f"{run.path} was forked at iteration {run.before}, and {shortest.path} ends at "
                f"{shortest.end}: they have no iteration in common. Name only one of them."
            )
    notes = [*fork_notes(arms)]
    if shortest.end < longest.end:
        notes.append(
            f"{shortest.path} has {shortest.end} iterations, {longest.path} {longest.end}: all runs are "
            f"compared up to iteration {shortest.end}."
        )
    for run in forked:
        if run.end < shortest.end:
            notes.append(
                f"{run.path} ends at iteration {run.end}, its fork is shown up to {shortest.end}: final "
                f"figures are those of the last {FINAL * shortest.end:.0f} iterations of each."
            )
    seeds = [set(arm.runs) for arm in arms]
    if any(s != seeds[0] for s in seeds):
        notes.append("Arms have different seeds; paired differences take those that both have.")
    if len(arms) > 1 and max(map(len, seeds)) == 1:
        notes.append("One seed an arm: there are no intervals, and differences may be chance.")
    if _different([run.versions for run in runs if run.versions]):
        notes.append("The runs were made with different package versions (see Versions).")
    return Comparison(arms, shortest.end, notes)


def _different(items: Iterable[object]) -> bool:
    found = list(items)
    return any(item != found[0] for item in found)
