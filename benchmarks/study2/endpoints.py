"""Tables of the second study's endpoints: arms beside the first one, seed by seed.

A row an arm: mean over the seeds of each endpoint of docs/results/study2/protocol.md, the paired difference
with the first arm with its 95 % t interval, and p after Holm's correction over the arms; bold below 0.05.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ecrl.analysis.stats import Interval, paired
from study2.packed import Run, Runs, Values, at_the_end, measured, of_seeds

LEVEL = 0.05  # of significance, after correction
#: Arms of the main comparison beside its first: Holm's correction counts those that are not finished too.
ARMS = 10


def at_its_best(run: Run) -> float:
    """Measure avg@16 on half of the problems where it is best on the other; the mean of both ways."""
    even, odd = (measured(run, half) for half in ("even", "odd"))
    return float((odd[even.argmax()] + even[odd.argmax()]) / 2)


def best_iteration(run: Run) -> float:
    """Measure the mean of the iterations that the two halves choose."""
    iteration = run["iteration"][np.isfinite(run["even"])]
    return float(np.mean([iteration[measured(run, half).argmax()] for half in ("even", "odd")]))


ENDPOINTS: Mapping[str, Callable[[Run], float]] = {
    "avg@16 at the end": at_the_end("avg"),
    "avg@16 at its best": at_its_best,
    "iteration of the best": best_iteration,
    "pass@16 at the end": at_the_end("pass"),
    "entropy at the end, nats": at_the_end("entropy"),
}


def holm(p: Sequence[float], tests: int = 0) -> list[float]:
    """Correct p-values for their number, after Holm (1979).

    The smallest is multiplied by their number, the next by one less, and so on; none falls below one before.
    ``tests`` is their number where it is above that of ``p``.
    """
    number = max(tests, len(p))
    order = np.argsort(p)
    corrected = np.maximum.accumulate(np.asarray(p)[order] * np.arange(number, number - len(p), -1)).clip(
        max=1
    )
    return list(map(float, corrected[np.argsort(order)]))


@dataclass(frozen=True)
class Difference:
    """The paired difference of an arm and its baseline.

    Attributes:
        interval: its mean and 95 % t interval.
        p: of the two-sided paired t-test, after Holm's correction.
    """

    interval: Interval
    p: float

    @property
    def above(self) -> bool:
        """Whether the arm lies above its baseline."""
        return self.p < LEVEL and self.interval.mean > 0

    @property
    def below(self) -> bool:
        """Whether the arm lies below its baseline."""
        return self.p < LEVEL and self.interval.mean < 0

    def __str__(self) -> str:
        said = f"{self.interval.mean:+.3f} [{self.interval.low:+.3f}, {self.interval.high:+.3f}]"
        return f"**{said}**" if self.p < LEVEL else said


def p_value(values: Values, baseline: Values) -> float:
    """Return the two-sided p of the paired t-test over the shared seeds.

    It is 1 for fewer than two seeds, and where the two are equal in all.
    """
    shared = sorted(values.keys() & baseline.keys())
    if len(shared) < 2 or all(values[s] == baseline[s] for s in shared):
        return 1.0
    return float(stats.ttest_rel([values[s] for s in shared], [baseline[s] for s in shared]).pvalue)


def compare(pairs: Mapping[str, tuple[Values, Values]], tests: int = 0) -> dict[str, Difference]:
    """Compare (values, baseline) of each name; Holm's correction runs over all of them, or over ``tests``."""
    found = {name: paired(*pair) for name, pair in pairs.items()}
    corrected = holm([p_value(*pair) for pair in pairs.values()], tests)
    return {
        name: Difference(difference, p)
        for (name, difference), p in zip(found.items(), corrected, strict=True)
        if difference is not None
    }


def against_first(runs: Runs, measure: Callable[[Run], float], tests: int = 0) -> dict[str, Difference]:
    """Compare every arm with the first."""
    first, *others = runs
    baseline = of_seeds(runs[first], measure)
    return compare({arm: (of_seeds(runs[arm], measure), baseline) for arm in others}, tests)


def table(runs: Runs, measure: Callable[[Run], float], tests: int = 0) -> list[str]:
    """Return the lines of an endpoint's table."""
    first = next(iter(runs))
    differences = against_first(runs, measure, tests)
    lines = [f"| arm | mean | seeds | difference with {first} | p, Holm |", "|---|---|---|---|---|"]
    for arm, of in runs.items():
        values = list(of_seeds(of, measure).values())
        found = differences.get(arm)
        cells = f"{found} | {found.p:.3f}" if found else " | "
        lines.append(f"| {arm} | {np.mean(values):.3f} | {len(values)} | {cells} |")
    return lines
