"""One table for the first study: which of the paper's claims hold in a sweep.

    ecrl sweep benchmarks/study.yaml output=runs/study
    python benchmarks/study.py runs/study

Each cell is the mean over the seeds ± half the 95 % t interval. The claims are those of
https://arxiv.org/abs/2505.22617, sections 2 to 4.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecrl.analysis.law import forecast
from ecrl.analysis.points import ENTROPY, pair
from ecrl.analysis.series import Series, read_series
from ecrl.analysis.stats import interval
from ecrl.sweep.definition import NAME, make_sweep, read_sweep

WIDTH = 10  # iterations of a trailing mean


def logged(run: Series, name: str) -> NDArray[np.float64]:
    """Return the measured values of a metric, in the order of training."""
    return run[name][np.isfinite(run[name])]


def early_spending(run: Series) -> float:
    """Return the share of the run's total loss of entropy that happens in its first third."""
    h = logged(run, ENTROPY)
    third = len(h) // 3
    return float((h[0] - h[third - WIDTH : third].mean()) / (h[0] - h[-WIDTH:].mean()))


def early_gain(run: Series) -> float:
    """Return the share of the run's total gain in validation reward that its first third makes."""
    points = pair(run)
    r = points.reward
    third = points.iteration <= points.iteration[-1] / 3
    return float((r[third][-3:].mean() - r[0]) / (r[-3:].mean() - r[0]))


def r2(run: Series) -> float:
    """Return R² of the law over the whole run."""
    return pair(run).law().r2


def early_rmse(share: float) -> Callable[[Series], float]:
    """Measure the RMSE, over the rest of the run, of a law fitted on the first points."""
    return lambda run: forecast(pair(run).entropy, pair(run).reward, share).rmse


def early_error(share: float) -> Callable[[Series], float]:
    """Measure the predicted minus the measured reward at the last point."""
    return lambda run: forecast(pair(run).entropy, pair(run).reward, share).final_error


def positive(run: Series) -> float:
    """Return the share of the iterations whose mean token covariance is positive."""
    return float((logged(run, "cov/mean") > 0).mean())


def concentration(run: Series) -> float:
    """Return the mean covariance of the top 2 % of tokens over that of all tokens, averaged over the run."""
    return float(logged(run, "cov/top_2%").mean() / logged(run, "cov/mean").mean())


def correlation(run: Series) -> float:
    """Return the correlation of mean token covariance with lost entropy, over blocks of iterations."""
    h, cov = logged(run, ENTROPY), logged(run, "cov/mean")
    lost = -np.diff(h[::WIDTH])
    return float(np.corrcoef(cov[: len(lost) * WIDTH].reshape(-1, WIDTH).mean(1), lost)[0, 1])


def last(name: str) -> Callable[[Series], float]:
    """Read a metric from the last iteration that has it."""
    return lambda run: float(logged(run, name)[-1])


CLAIMS: Mapping[str, Callable[[Series], float]] = {
    "entropy spent by the first third": early_spending,
    "gain made by the first third": early_gain,
    "law: R²": r2,
    "law from the first sixth: RMSE of the rest": early_rmse(1 / 6),
    "law from the first sixth: error at the end": early_error(1 / 6),
    "law from the first 36 %: RMSE of the rest": early_rmse(0.36),
    "law from the first 36 %: error at the end": early_error(0.36),
    "covariance positive, share of iterations": positive,
    "covariance of the top 2 % over all": concentration,
    "r of covariance and entropy lost, blocks of 10": correlation,
    "r of ΔH and −Cov(log π, Δz)": last("dynamics/correlation_by_logits"),
    "slope of ΔH on −Cov(log π, Δz)": last("dynamics/slope_by_logits"),
    "r of ΔH and −η·Cov(log π, A), tokens": last("dynamics/correlation_by_tokens"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sweep", type=Path)
    folder = parser.parse_args().sweep
    sweep = make_sweep(read_sweep(folder / NAME), str(folder / NAME))
    runs = {arm: [read_series(folder / f"{arm}-{seed}") for seed in sweep.seeds] for arm in sweep.arms}
    print("| | " + " | ".join(runs) + " |")
    print("|---" * (1 + len(runs)) + "|")
    for claim, measure in CLAIMS.items():
        cells = [interval([measure(run) for run in seeds]) for seeds in runs.values()]
        print(f"| {claim} | " + " | ".join(f"{c.mean:.3g} ± {c.half:.2g}" for c in cells) + " |")


if __name__ == "__main__":
    main()
