"""The second study's tables, from the packed figures that are committed beside the report.

    python benchmarks/study2/tables.py docs/results/study2/main.parquet

A row an arm: mean over the seeds of each endpoint of docs/results/study2/protocol.md, the paired difference
with the first arm with its 95 % t interval, and p after Holm's correction over the arms; bold below 0.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import stats

from ecrl.analysis.stats import paired

Run = Mapping[str, NDArray[np.float64]]
LAST = 0.2  # share of the iterations that "at the end" means


def read(path: Path) -> dict[str, dict[int, Run]]:
    """Return the columns of each run, by arm and seed, in the order of the file."""
    table = pq.read_table(path)
    arms, seeds = (table[name].to_numpy() for name in ("arm", "seed"))
    names = [name for name in table.column_names if name not in ("arm", "seed")]
    values = {name: table[name].to_numpy().astype(float) for name in names}
    runs: dict[str, dict[int, Run]] = {}
    for arm, seed in dict.fromkeys(zip(arms, seeds.tolist(), strict=True)):
        here = (arms == arm) & (seeds == seed)
        runs.setdefault(arm, {})[seed] = {name: column[here] for name, column in values.items()}
    return runs


def at_the_end(name: str) -> Callable[[Run], float]:
    """Measure the mean of a column over the last fifth of the iterations."""
    return lambda run: float(np.nanmean(run[name][run["iteration"] > (1 - LAST) * run["iteration"][-1]]))


def at_its_best(run: Run) -> float:
    """Measure avg@16 on half of the problems where it is best on the other; the mean of both ways."""
    even, odd = (run[half][np.isfinite(run[half])] for half in ("even", "odd"))
    return float((odd[even.argmax()] + even[odd.argmax()]) / 2)


def best_iteration(run: Run) -> float:
    """Measure the mean of the iterations that the two halves choose."""
    measured = np.isfinite(run["even"])
    return float(
        np.mean([run["iteration"][measured][run[half][measured].argmax()] for half in ("even", "odd")])
    )


ENDPOINTS: Mapping[str, Callable[[Run], float]] = {
    "avg@16 at the end": at_the_end("avg"),
    "avg@16 at its best": at_its_best,
    "iteration of the best": best_iteration,
    "pass@16 at the end": at_the_end("pass"),
    "entropy at the end, nats": at_the_end("entropy"),
}


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number, after Holm (1979).

    The smallest is multiplied by their number, the next by one less, and so on; none falls below one before.
    """
    order = np.argsort(p)
    corrected = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return list(map(float, corrected[np.argsort(order)]))


def p_value(values: Mapping[int, float], baseline: Mapping[int, float]) -> float:
    """Return the two-sided p of the paired t-test over the shared seeds; 1 for fewer than two."""
    shared = sorted(values.keys() & baseline.keys())
    if len(shared) < 2:
        return 1.0
    return float(stats.ttest_rel([values[s] for s in shared], [baseline[s] for s in shared]).pvalue)


def table(runs: Mapping[str, Mapping[int, Run]], measure: Callable[[Run], float]) -> list[str]:
    """Return the rows of an endpoint's table."""
    found = {arm: {seed: measure(run) for seed, run in of.items()} for arm, of in runs.items()}
    first, *others = found
    corrected = dict(zip(others, holm([p_value(found[arm], found[first]) for arm in others]), strict=True))
    rows = [f"| {first} | {np.mean(list(found[first].values())):.3f} | {len(found[first])} | | |"]
    for arm in others:
        difference = paired(found[arm], found[first])
        cell = "–"
        if difference is not None:
            cell = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        cell = f"**{cell}**" if corrected[arm] < 0.05 else cell
        mean = np.mean(list(found[arm].values()))
        rows.append(f"| {arm} | {mean:.3f} | {len(found[arm])} | {cell} | {corrected[arm]:.3f} |")
    return rows


def main() -> None:
    """Print a table for each endpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    runs = read(parser.parse_args().file)
    for name, measure in ENDPOINTS.items():
        print(f"\n### {name}\n")
        print(f"| arm | mean | seeds | difference with {next(iter(runs))} | p, Holm |\n|---|---|---|---|---|")
        print("\n".join(table(runs, measure)))


if __name__ == "__main__":
    main()
