"""The fit of R = −a·exp(H) + b of every arm, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ecrl.analysis.law import fit_law
from ecrl.analysis.stats import interval
from study2.packed import Runs, points

FIGURES = ("a", "b", "ceiling", "r2", "rmse")
NAMES = ("a", "b", "ceiling −a + b", "R²", "RMSE")


def table(parts: Mapping[str, Runs]) -> Iterator[str]:
    """Yield the lines of the table; each figure is a mean over the seeds ± half the 95 % t interval."""
    yield f"| part | arm | {' | '.join(NAMES)} |"
    yield "|---" * (2 + len(NAMES)) + "|"
    for part, runs in parts.items():
        for arm, of in runs.items():
            try:
                laws = [fit_law(*points(run)) for run in of.values()]
            except ValueError:  # entropy hardly moves
                yield f"| {part} | {arm} |{' – |' * len(NAMES)}"
                continue
            means = [interval([getattr(law, figure) for law in laws]) for figure in FIGURES]
            cells = [f"{mean.mean:.2f} ± {mean.half:.2f}" for mean in means[:-1]]
            yield f"| {part} | {arm} | {' | '.join(cells)} | {means[-1].mean:.3f} ± {means[-1].half:.3f} |"
