"""``ecrl theory``: where the first-order theory of entropy change holds, and where it ends."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecrl.analysis import Floats
from ecrl.analysis.theory import Row, study
from ecrl.errors import UsageError, unknown_name
from ecrl.runs.metrics_file import legible

HELP = """ecrl theory: the first-order theory of entropy change against exact steps of tabular policies

  ecrl theory [output=DIR] [seed=0] [actions=50] [states=10] [draws=50] [small=1e-3] [tolerance=0.005]

Exit code 1 if a prediction at a learning rate up to `small` errs by more than `tolerance`, relative to
the measured change. output: folder for theory.png.
"""
#: From where first order is exact to where it means nothing.
RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Settings:
    """Words of the command, ``key=value``.

    Attributes:
        output: folder for the figure; empty for none.
        seed: of problems and policies.
        actions: of the bandit and in each state.
        states: of the multi-state problem.
        draws: random problems of each kind.
        small: learning rates up to this one must agree.
        tolerance: the relative error that they may have.
    """

    output: str = ""
    seed: int = 0
    actions: int = 50
    states: int = 10
    draws: int = 50
    small: float = 1e-3
    tolerance: float = 5e-3


def main(arguments: Sequence[str]) -> int:
    """Print the table and draw the figure.

    Returns:
        0; 1 if the agreement at the small learning rates is worse than the tolerance.
    """
    settings = parse(arguments)
    output = Path(os.path.expanduser(settings.output)) if settings.output else None
    if output is not None:
        make_folder(output)
    rows = study(
        actions=settings.actions,
        states=settings.states,
        draws=settings.draws,
        rates=RATES,
        seed=settings.seed,
    )
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table(rows, settings))
    if output is not None:
        path = output / "theory.png"
        save(figure(rows, settings), path)
        console.print(f"Figure: {legible(path)}")
    worst = max(_error(row) for row in rows if row.rate <= settings.small)
    agrees = worst <= settings.tolerance
    console.print(
        f"Up to η = {settings.small:g} the worst relative error is {worst:.3%}, "
        f"{'within' if agrees else 'beyond'} the stated {settings.tolerance:.3%}."
    )
    return 0 if agrees else 1


def parse(arguments: Sequence[str]) -> Settings:
    """Read the words.

    Raises:
        UsageError: an unknown key, or a value out of range.
    """
    kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(Settings)}
    given: dict[str, Any] = {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if key not in kinds:
            raise unknown_name("setting of `ecrl theory`", key, kinds)
        if key in given:
            raise UsageError(f"`ecrl theory`: {key} stands twice; drop one.")
        try:
            given[key] = kinds[key](value)
        except ValueError:
            equals = ""
        if not equals or not value:
            raise UsageError(f"`ecrl theory`: {word!r} is not {key}=<{kinds[key].__name__}>.")
    settings = Settings(**given)
    least = {"seed": 0, "actions": 2, "states": 1, "draws": 3, "small": RATES[0], "tolerance": 0}
    for key, low in least.items():
        value = getattr(settings, key)
        if not low <= value < math.inf:
            raise UsageError(f"`ecrl theory`: {key} must be finite and at least {low:g}, got {value}.")
    return settings


def make_folder(output: Path) -> None:
    """Make the folder before the work.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"output={str(output)!r} cannot be created: {error}.") from None


def save(made: Figure, path: Path) -> None:
    """Write the figure.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        made.savefig(path, dpi=150)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}.") from None


def table(rows: Sequence[Row], settings: Settings) -> Table:
    """One line for each problem, method and learning rate."""
    made = Table(
        title=f"Entropy change after one step: {settings.draws} draws, {settings.actions} actions",
        caption="PG, NPG: (natural) policy gradient. ΔH: root mean square over states and draws, nats. "
        "Error: of the worse of two predictions, −Cov(log π, Δz) and the one from the advantages, "
        "relative to ΔH. Correlation and slope: of ΔH on the latter. ✓ ✗: held to the tolerance.",
        box=SIMPLE_HEAD,
    )
    for name in ("problem", "step"):
        made.add_column(name, no_wrap=True)
    for name in ("η", "ΔH", "error", "correlation", "slope", ""):
        made.add_column(name, justify="right", no_wrap=True)
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.method != row.method:
            made.add_section()
        fit = row.by_advantage
        mark = "✓" if _error(row) <= settings.tolerance else "✗"
        made.add_row(
            row.problem,
            row.method,
            f"{row.rate:g}",
            f"{size(row.measured):.2e}",
            f"{_error(row):.3%}",
            f"{fit.correlation:.5f}",
            f"{fit.slope:.4f}",
            mark if row.rate <= settings.small else "",
        )
    return made


def _error(row: Row) -> float:
    """The worse of the two predictions' errors."""
    return max(row.by_logits.error, row.by_advantage.error)


def figure(rows: Sequence[Row], settings: Settings) -> Figure:
    """Predicted and measured ΔH (root mean square), and their relative error, over η."""
    made = Figure(figsize=(11, 4.5), layout="constrained")
    sizes, errors = made.subplots(1, 2)
    kinds = list(dict.fromkeys((row.problem, row.method) for row in rows))
    for number, (problem, method) in enumerate(kinds):
        some = [row for row in rows if (row.problem, row.method) == (problem, method)]
        rates = [row.rate for row in some]
        predicted = [size(row.predicted) for row in some]
        color, label = f"C{number}", f"{problem}, {method}"
        sizes.plot(rates, predicted, color=color, label=f"{label}: first order")
        sizes.plot(rates, [size(row.measured) for row in some], "o", color=color, mfc="none")
        errors.plot(rates, [row.by_advantage.error for row in some], "o-", color=color, label=label)
    errors.axhline(settings.tolerance, color="gray", linestyle=":", label="stated tolerance")
    errors.axvspan(RATES[0], settings.small, color="gray", alpha=0.15, linewidth=0)
    sizes.set_title("Entropy change of one step (circles: measured)")
    sizes.set_ylabel("root mean square of ΔH, nats")
    errors.set_title("Where first order ends")
    errors.set_ylabel("relative error of the prediction")
    for axes in (sizes, errors):
        axes.set(xscale="log", yscale="log", xlabel="learning rate η")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return made


def size(values: Floats) -> float:
    """Root mean square of ``[n]``."""
    return float(np.sqrt(np.mean(np.square(values))))
