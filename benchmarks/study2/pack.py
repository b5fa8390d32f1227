"""A sweep's runs as one small file, and the file as runs again, from which `ecrl report` makes its page.

A row for each iteration of each finished run: arm, seed, settings and summary of the run, the metrics of
``METRICS``, those of the validation, and ``even`` and ``odd``: avg@16 on the validation problems of even and
of odd number, by the answers on disk. The sweep's definition is in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecrl.analysis.series import Series, read_series
from ecrl.runs.rollouts import part_path, saved_rollouts, validated_sets
from ecrl.sweep.definition import NAME, make_sweep, read_sweep

METRICS = (
    "policy/entropy", "policy/grad_norm", "policy/kl_behaviour", "policy/ratio", "policy/clip_high",
    "policy/clip_low", "rollout/reward", "rollout/length", "rollout/tokens", "rollout/truncated",
    "cov/mean", "cov/top_2%", "time/total", "time/validate",
)  # fmt: skip
#: Ends of the names of a validation's metrics, ``val/SET/…``.
VALIDATION = ("/avg@16", "/pass@16", "/greedy")
_SWEEP = b"sweep"
_FILES = {"config": "config.yaml", "summary": "summary.json"}


def pack(folder: Path, file: Path) -> None:
    """Write the file of a sweep's finished runs, or none if an arm has no finished run.

    Args:
        folder: output of ``ecrl sweep``.
        file: Parquet file to write.
    """
    sweep = make_sweep(read_sweep(folder / NAME), str(folder / NAME))
    finished = {arm: _finished(folder, arm, sweep.seeds) for arm in sweep.arms}
    missing = ", ".join(arm for arm, seeds in finished.items() if not seeds)
    if missing:
        print(f"{folder} is left out: no run of {missing} is finished")
        return
    tables = [_table(folder, arm, seed) for arm, seeds in finished.items() for seed in seeds]
    table = pa.concat_tables(tables, promote_options="default")
    table = table.replace_schema_metadata({_SWEEP: (folder / NAME).read_bytes()})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, compression="zstd", compression_level=19)
    print(f"{file}: {table.num_rows} iterations, {file.stat().st_size / 1e6:.2f} MB")


def unpack(file: Path, folder: Path) -> None:
    """Write the runs of a file, each with its settings, its metrics and its summary.

    Args:
        file: Parquet file of ``pack``.
        folder: to write ``sweep.yaml`` and a folder for each run into.
    """
    table = pq.read_table(file)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(table.schema.metadata[_SWEEP])
    for (arm, seed), rows in _by_run(table):
        run_dir = folder / f"{arm}-{seed}"
        run_dir.mkdir(exist_ok=True)
        for name, of_run in _FILES.items():
            (run_dir / of_run).write_text(rows[0][name], encoding="utf-8")
        with (run_dir / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
            for row in rows:
                measured = {k: v for k, v in row.items() if _is_metric(k) and v is not None and v == v}
                metrics.write(json.dumps(measured) + "\n")


def _is_metric(name: str) -> bool:
    return name == "iteration" or "/" in name


def _by_run(table: pa.Table) -> Iterator[tuple[tuple[str, int], list[dict[str, object]]]]:
    runs: dict[tuple[str, int], list[dict[str, object]]] = {}
    for row in table.to_pylist():
        runs.setdefault((row["arm"], row["seed"]), []).append(row)
    yield from runs.items()


def _finished(folder: Path, arm: str, seeds: Sequence[int]) -> list[int]:
    """Return the seeds whose run is finished, and say which are not."""
    finished = [seed for seed in seeds if (folder / f"{arm}-{seed}" / "summary.json").exists()]
    for seed in seeds:
        if seed not in finished:
            print(f"{arm}-{seed} is not finished and is left out")
    return finished


def _table(folder: Path, arm: str, seed: int) -> pa.Table:
    """Return the rows of a run."""
    run_dir = folder / f"{arm}-{seed}"
    run = read_series(run_dir)
    count = len(run.iteration)
    of_run = {"arm": arm} | {name: (run_dir / file).read_text() for name, file in _FILES.items()}
    columns = {name: pa.array([text] * count).dictionary_encode() for name, text in of_run.items()}
    columns["seed"] = pa.array([seed] * count, pa.int32())
    columns["iteration"] = pa.array(run.iteration, pa.int32())
    metrics = _metrics(run) | _halves(run_dir, run)
    return pa.table(columns | {name: pa.array(x.astype(np.float32)) for name, x in metrics.items()})


def _metrics(run: Series) -> dict[str, np.ndarray]:
    """Return the metrics that are packed, ``[T]`` each; NaN where not measured."""
    return {
        name: values
        for name, values in run.columns.items()
        if name in METRICS or (name.startswith("val/") and name.endswith(VALIDATION))
    }


def _halves(run_dir: Path, run: Series) -> dict[str, np.ndarray]:
    """Return avg@16 on the validation problems of even and of odd number, ``[T]`` each."""
    even, odd = (np.full(len(run.iteration), np.nan) for _ in range(2))
    (task,) = validated_sets(run_dir)
    for iteration in saved_rollouts(run_dir, task):
        answers = pq.read_table(part_path(run_dir, iteration, task), columns=["problem", "reward", "greedy"])
        problem, reward, greedy = (answers[name].to_numpy() for name in answers.column_names)
        number = np.unique(problem, return_inverse=True)[1]
        at = run.iteration == iteration
        even[at], odd[at] = (reward[~greedy & (number % 2 == half)].mean() for half in (0, 1))
    return {"even": even, "odd": odd}
