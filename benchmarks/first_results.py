"""Compares GRPO with Clip-Cov and KL-Cov on the default task: runs, figure and table.

    python benchmarks/first_results.py --runs runs/first --output docs/results

Finished runs are not repeated, and an interrupted run continues from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ecrl.analysis.points import smooth
from ecrl.cli import main as ecrl
from ecrl.runs.metrics_file import read_metrics
from ecrl.runs.versions import versions

CELLS = {"GRPO": "[]", "Clip-Cov": "[clip_cov_small]", "KL-Cov": "[kl_cov_small]"}
COLOURS = {"GRPO": "#c0392b", "Clip-Cov": "#2471a3", "KL-Cov": "#1e8449"}
SEEDS = (11, 12, 13)
PANELS = {
    "policy/entropy": "policy entropy, nats",
    "val/countdown/avg@16": "validation avg@16",
    "val/countdown/pass@16": "validation pass@16",
    "cov/mean": "mean token covariance",
}


def curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return the iterations at which a metric was measured, and its values."""
    points = [(row["iteration"], row[name]) for row in rows if row.get(name) is not None]
    return [x for x, _ in points], [y for _, y in points]


def draw(histories: dict[str, list[list[dict[str, Any]]]], path: Path) -> None:
    """Draw one panel for each metric: mean over seeds, band from the lowest to the highest seed."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3.2), constrained_layout=True)
    for axis, (metric, label) in zip(axes, PANELS.items(), strict=True):
        width = 1 if metric.startswith("val") else 10
        for name, seeds in histories.items():
            iterations = curve(seeds[0], metric)[0]
            values = np.stack([smooth(curve(rows, metric)[1], width) for rows in seeds])
            axis.plot(iterations, values.mean(0), label=name, color=COLOURS[name])
            axis.fill_between(iterations, values.min(0), values.max(0), color=COLOURS[name], alpha=0.15)
        axis.set(xlabel="iteration", title=label)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def final(rows: list[dict[str, Any]], metric: str) -> float:
    """Return the mean of the last five validations, or of the last twenty iterations."""
    return float(np.mean(curve(rows, metric)[1][-5 if metric.startswith("val") else -20 :]))


def table(histories: dict[str, list[list[dict[str, Any]]]]) -> str:
    """Format final values and paired differences to GRPO: mean ± standard deviation over the seeds."""
    metrics = ["policy/entropy", "val/countdown/avg@16", "val/countdown/pass@16", "val/countdown/greedy"]
    lines = ["| | entropy, nats | avg@16 | pass@16 | greedy |", "|---|---|---|---|---|"]
    start = [[curve(rows, m)[1][0] for rows in histories["GRPO"]] for m in metrics]
    lines.append("| before RL | " + " | ".join(mean_and_deviation(values) for values in start) + " |")
    ends = {n: [[final(rows, m) for rows in seeds] for m in metrics] for n, seeds in histories.items()}
    for name, values in ends.items():
        lines.append(f"| {name} | " + " | ".join(mean_and_deviation(v) for v in values) + " |")
    for name in list(ends)[1:]:
        pairs = zip(ends[name], ends["GRPO"], strict=True)
        differences = [[x - y for x, y in zip(a, b, strict=True)] for a, b in pairs]
        lines.append(
            f"| {name} − GRPO, same seed | "
            + " | ".join(mean_and_deviation(d, "+") for d in differences)
            + " |"
        )
    return "\n".join(lines)


def mean_and_deviation(values: list[float], sign: str = "") -> str:
    return f"{statistics.mean(values):{sign}.3f} ± {statistics.stdev(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/first"))
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arms = {name: f"strategy={strategy}" for name, strategy in CELLS.items()}
    words = [f"output={arguments.runs}", f"arms={json.dumps(arms)}", f"seeds={list(SEEDS)}"]
    code = ecrl(["sweep", *words, f"jobs={arguments.jobs}", f"iterations={arguments.iterations}"])
    if code:
        sys.exit(code)
    histories = {
        n: [read_metrics(arguments.runs / f"{n}-{s}" / "metrics.jsonl") for s in SEEDS] for n in CELLS
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(histories, arguments.output / "first.png")
    text = f"{table(histories)}\n\nSeeds {SEEDS}, {arguments.iterations} iterations. Versions: {versions()}\n"
    (arguments.output / "first_table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
