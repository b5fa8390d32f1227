"""One small figure of every method beside plain GRPO: entropy and avg@16 on the default task, one seed.

    ecrl sweep benchmarks/methods.yaml output=runs/methods
    python benchmarks/method_figures.py runs/methods

Writes ``docs/strategies/NAME.svg`` and the curves themselves, ``docs/strategies/curves.csv``. They illustrate
and do not compare: one seed, defaults, nothing tuned.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ecrl.analysis.series import Series, read_series

METRICS = {"policy/entropy": "entropy, nats", "val/countdown/avg@16": "avg@16"}
BASELINE, MUTED, COLOUR = "grpo", "#8a8a8a", "#c2410c"


def curve(run: Series, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the iterations at which a metric was measured, and its values."""
    measured = np.isfinite(run[metric])
    return run.iteration[measured], run[metric][measured]


def draw(name: str, run: Series, baseline: Series, path: Path) -> None:
    """Draw a method's two curves over those of GRPO."""
    figure = Figure(figsize=(6.4, 1.9), layout="constrained")
    for axes, (metric, label) in zip(figure.subplots(1, 2), METRICS.items(), strict=True):
        axes.plot(*curve(baseline, metric), color=MUTED, lw=1.2, label="GRPO")
        axes.plot(*curve(run, metric), color=COLOUR, lw=1.6, label=name)
        axes.set_title(label, fontsize=8, loc="left")
        axes.tick_params(labelsize=7)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "runs", type=Path, help="output of the sweep; arms that are not finished are left out"
    )
    parser.add_argument("--output", type=Path, default=Path("docs/strategies"))
    arguments = parser.parse_args()
    # The same file from the same runs; words as words, which take a third of the space.
    matplotlib.rcParams.update({"svg.hashsalt": "ecrl", "svg.fonttype": "none"})
    arguments.output.mkdir(parents=True, exist_ok=True)
    finished = sorted(path.parent for path in arguments.runs.glob("*-0/summary.json"))
    runs = {folder.name.removesuffix("-0"): read_series(folder) for folder in finished}
    with (arguments.output / "curves.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "iteration", "metric", "value"])
        for arm, run in runs.items():
            for metric in METRICS:
                for iteration, value in zip(*curve(run, metric), strict=True):
                    table.writerow([arm, int(iteration), metric, f"{value:.4g}"])
            if arm != BASELINE:
                draw(arm, run, runs[BASELINE], arguments.output / f"{arm}.svg")
    print(f"{len(runs)} methods drawn into {arguments.output}")


if __name__ == "__main__":
    main()
