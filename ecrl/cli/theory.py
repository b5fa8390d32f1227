"""``ecrl theory``: where the first-order theory of entropy change holds, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecrl.analysis import Floats
from ecrl.analysis.theory import Row, study
from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import number
from ecrl.runs.metrics_file import legible
from ecrl.runs.os_errors import writing

#: Learning rates, from where first order is exact to where it means nothing.
RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Settings:
    """Settings of the command.

    Attributes:
        output: folder for the figure; None draws none.
        seed: of problems and policies.
        actions: of the bandit, and in each state of the other problem.
        states: of the other problem.
        draws: random problems of each kind.
        small: learning rates up to this one must agree.
        tolerance: the relative error that they may have.
    """

    output: Path | None = None
    seed: int = number(0, least=0)
    actions: int = number(50, least=2)
    states: int = number(10, least=1)
    draws: int = number(50, least=3)
    small: float = number(1e-3, least=RATES[0])
    tolerance: float = number(5e-3, least=0)


COMMAND = Command(
    name="theory",
    help="""ecrl theory: the first-order theory of entropy change against exact steps of tabular policies

  ecrl theory output=DIR tolerance=0.005

  output=DIR     folder for theory.png
  seed=N         of problems and policies                                       (default: 0)
  actions=N      of the bandit, and in each state of the other problem          (default: 50)
  states=N       of the other problem                                           (default: 10)
  draws=N        random problems of each kind                                   (default: 50)
  small=RATE     learning rates up to this one must agree                       (default: 0.001)
  tolerance=X    the error that they may have, relative to the measured change  (default: 0.005)

Exit code 1 if a prediction at a small learning rate errs by more than the tolerance.
""",
    settings=Settings,
)


def main(arguments: Arguments[Settings]) -> int:
    """Print the table and draw the figure.

    Returns:
        0; 1 if the agreement at the small learning rates is worse than the tolerance.
    """
    settings = arguments.settings
    output = settings.output
    if output is not None:
        with writing(output, "output"):
            output.mkdir(parents=True, exist_ok=True)
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
        with writing(output, "output"):
            figure(rows, settings).savefig(path, dpi=150)
        console.print(f"Figure: {legible(path)}")
    worst = max(_error(row) for row in rows if row.rate <= settings.small)
    agrees = worst <= settings.tolerance
    console.print(
        f"Up to η = {settings.small:g} the worst relative error is {worst:.3%}, "
        f"{'within' if agrees else 'beyond'} the stated {settings.tolerance:.3%}."
    )
    return 0 if agrees else 1


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
    for i, (problem, method) in enumerate(kinds):
        some = [row for row in rows if (row.problem, row.method) == (problem, method)]
        rates = [row.rate for row in some]
        predicted = [size(row.predicted) for row in some]
        color, label = f"C{i}", f"{problem}, {method}"
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
