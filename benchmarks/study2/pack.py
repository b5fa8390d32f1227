"""Pack the runs of a sweep into one small file, from which the study's tables are made.

    python benchmarks/study2/pack.py runs/study2/main docs/results/study2/main.parquet

A row for each iteration of each run that is finished; a column for each metric of ``METRICS``, and ``even``
and ``odd``: avg@16 on the validation problems of even and of odd number, by the answers on disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecrl.analysis.series import Series, read_series
from ecrl.runs.rollouts import part_path
from ecrl.sweep.definition import NAME, make_sweep, read_sweep

METRICS = {
    "entropy": "policy/entropy",
    "reward": "rollout/reward",
    "length": "rollout/length",
    "tokens": "rollout/tokens",
    "grad_norm": "policy/grad_norm",
    "kl": "policy/kl_behaviour",
    "ratio": "policy/ratio",
    "covariance": "cov/mean",
    "covariance_top": "cov/top_2%",
    "seconds": "time/total",
}
#: Ends of the names of a validation's metrics, ``val/SET/…``.
VALIDATION = {"avg": "/avg@16", "pass": "/pass@16", "greedy": "/greedy"}


def columns(run_dir: Path) -> dict[str, np.ndarray]:
    """Return the columns of a run, ``[T]`` each; NaN where not measured."""
    run = read_series(run_dir)
    missing = np.full(len(run.iteration), np.nan)
    found = {name: run.columns.get(metric, missing) for name, metric in METRICS.items()}
    for name, end in VALIDATION.items():
        found[name] = next(
            (run[key] for key in run.columns if key.startswith("val/") and key.endswith(end)), missing
        )
    return {"iteration": run.iteration} | found | halves(run_dir, run)


def halves(run_dir: Path, run: Series) -> dict[str, np.ndarray]:
    """Return avg@16 on the problems of even and of odd number, ``[T]`` each."""
    even, odd = (np.full(len(run.iteration), np.nan) for _ in range(2))
    sets = sorted(path.name for path in (run_dir / "rollouts" / "val").iterdir())
    for row, iteration in enumerate(run.iteration.tolist()):
        path = part_path(run_dir, iteration, sets[0])
        if path.exists():
            part = pq.read_table(path, columns=["problem", "reward", "greedy"])
            problem, reward, greedy = (part[name].to_numpy() for name in part.column_names)
            number = np.unique(problem, return_inverse=True)[1]
            even[row], odd[row] = (reward[~greedy & (number % 2 == half)].mean() for half in (0, 1))
    return {"even": even, "odd": odd}


def tables(folder: Path) -> Iterator[pa.Table]:
    """Yield a table for each finished run of a sweep."""
    sweep = make_sweep(read_sweep(folder / NAME), str(folder / NAME))
    for arm in sweep.arms:
        for seed in sweep.seeds:
            run_dir = folder / f"{arm}-{seed}"
            if not (run_dir / "summary.json").exists():
                print(f"{run_dir.name} is not finished and is left out")
                continue
            found = columns(run_dir)
            count = len(found["iteration"])
            whole = {"arm": pa.array([arm] * count), "seed": pa.array([seed] * count, pa.int32())}
            whole["iteration"] = pa.array(found.pop("iteration"), pa.int32())
            yield pa.table(whole | {name: pa.array(x.astype(np.float32)) for name, x in found.items()})


def main() -> None:
    """Read a sweep and write its file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path, help="output of ecrl sweep")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    table = pa.concat_tables(tables(arguments.sweep))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, arguments.output, compression="zstd", compression_level=19)
    print(f"{arguments.output}: {table.num_rows} iterations, {arguments.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
