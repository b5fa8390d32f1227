"""The tables that ``ecrl law`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ecrl.analysis.law import Forecast, Law, Range, Scaling
from ecrl.analysis.points import Points


@dataclass(frozen=True)
class Fitted:
    """A run, its points, its law and its early predictions by share (or why there is none)."""

    name: str
    points: Points
    law: Law
    early: dict[float, Forecast | str]


def law_table(fits: Sequence[Fitted]) -> Table:
    """Return the fitted laws, a row a run."""
    table = _grid("run", "points", "a", "b", "ceiling", "R²", "RMSE")
    for fit in fits:
        law = fit.law
        ranges = (
            _range(law.a, law.a_interval),
            _range(law.b, law.b_interval),
            _range(law.ceiling, law.ceiling_interval),
        )
        table.add_row(fit.name, str(law.points), *ranges, f"{law.r2:.3f}", f"{law.rmse:.4f}")
    return table


def early_table(fits: Sequence[Fitted]) -> Table:
    """Return the early predictions, a row a run and share."""
    table = _grid("run", "fitted on", "points", "ceiling", "RMSE of the rest", "final error")
    table.title = "Early prediction"
    for fit in fits:
        for early in fit.early.values():
            if isinstance(early, str):
                continue
            table.add_row(
                fit.name,
                f"first {early.share:.0%}",
                str(early.fitted),
                _range(early.law.ceiling, early.law.ceiling_interval),
                f"{early.rmse:.4f}",
                f"{early.final_error:+.4f}",
            )
    return table


def _grid(*columns: str) -> Table:
    """Return an empty table that fits 80 characters."""
    return Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")


def _range(value: float, interval: Range) -> str:
    return f"{value:.3f}\n{interval[0]:.3f}…{interval[1]:.3f}"


def notes(fits: Sequence[Fitted]) -> list[str]:
    """Return what a reader must know about these fits, a line each."""
    notes = [
        "Ceiling: −a + b, at H = 0. Below a figure: its 95 % interval. Final error: predicted − measured."
    ]
    reasons: dict[str, list[str]] = {}
    for fit in fits:
        for share, early in fit.early.items():
            if isinstance(early, str):
                reasons.setdefault(f"no prediction from the first {share:.0%}: {early}", []).append(fit.name)
    notes += [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    for fit in fits:
        if fit.law.a_interval[0] <= 0:
            notes.append(f"{fit.name}: a may be 0; the ceiling says nothing where entropy buys no reward.")
        if fit.law.correlated:
            notes.append(
                f"{fit.name}: each residual is like the one before ({fit.law.autocorrelation:.2f}), so the "
                "intervals are too narrow."
            )
    return notes


def size_table(line: Scaling, sizes: Sequence[float]) -> Table:
    """Return a and b on their lines over model size."""
    table = _grid("size", "a", "b", "ceiling")
    table.title = "a and b on their lines over ln(size), with 95 % intervals of one more model"
    for size in sizes:
        a, b = line.predict(size)
        ranges = (_range(v, i) for v, i in zip((a, b), line.intervals(size), strict=True))
        table.add_row(f"{size:g}", *ranges, f"{b - a:.3f}")
    return table
