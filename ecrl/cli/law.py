"""``ecrl law RUN…``: the entropy law of finished runs, and how early it could have been known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ecrl.analysis.figures import Cloud, hr_figure
from ecrl.analysis.law import Forecast, forecast, scaling
from ecrl.analysis.points import ENTROPY, Points, pair
from ecrl.analysis.series import read_series
from ecrl.cli.arguments import Arguments, Command
from ecrl.cli.law_tables import Fitted, early_table, law_table, notes, size_table
from ecrl.cli.output import check_output
from ecrl.config.limits import number
from ecrl.errors import UsageError, usage_errors
from ecrl.report.csv_files import write_csv
from ecrl.runs.metrics_file import legible, runs_in
from ecrl.runs.os_errors import writing

#: Shares of the points that an early prediction is made from.
SHARES = (0.15, 0.36)


@dataclass(frozen=True)
class Settings:
    """Settings of the command.

    Attributes:
        reward: column of R; None takes the validation's avg@k (of several sets the mean), or rollout/reward.
        entropy: column of H, nats a token.
        iteration: column of the iteration, for a run of another framework.
        smooth: iterations of a trailing mean.
        sizes: model sizes of the runs, in their order.
        predict: a model size to extrapolate to.
        output: folder for figure and tables.
    """

    reward: str | None = None
    entropy: str = ENTROPY
    iteration: str | None = None
    smooth: int = number(1, least=1)
    sizes: tuple[float, ...] = number((), above=0)
    predict: float | None = number(None, above=0)
    output: Path | None = None


COMMAND = Command(
    name="law",
    help="""ecrl law: the entropy law R = −a·exp(H) + b of finished runs, and how early it could be known

  ecrl law RUN…                    a RUN: a run directory, a sweep's or other folder of runs, a CSV or JSONL
                                   with a row an iteration, or a folder with TensorBoard events

  reward=COLUMN      R                 (default: val/*/avg@*, of several sets their mean, else rollout/reward)
  entropy=COLUMN     H, nats a token                                        (default: policy/entropy)
  iteration=COLUMN   of another framework's run
  smooth=W           trailing mean over W iterations                                     (default: 1)
  sizes=S1,S2,…      model sizes of the runs: a and b as lines in ln(size)
  predict=S          also a and b at a size of none of the runs
  output=DIR         law.png, law.csv, points.csv
""",
    settings=Settings,
    words=True,
)


def main(arguments: Arguments[Settings]) -> int:
    """Fit and print the law of each run; with sizes, the line over model size."""
    settings = arguments.settings
    sources = _sources(arguments.words)
    output, sizes, target = settings.output, settings.sizes, settings.predict
    if output is not None:
        check_output(output)
    if sizes and len(sizes) != len(sources):
        raise UsageError(f"sizes names {len(sizes)} sizes for {len(sources)} runs.")
    if target is not None and not sizes:
        raise UsageError("predict=SIZE extrapolates over model size; name the runs' own: sizes=S1,S2,….")
    with usage_errors():
        fits = _fit(sources, settings)
        line = scaling(sizes, [fit.law for fit in fits]) if sizes else None
    # A name may look like markup or like an emoji's code.
    console = Console(highlight=False, markup=False, emoji=False)
    for pairing in dict.fromkeys(fit.points.pairing for fit in fits):
        console.print(f"R = −a·exp(H) + b, with R, H: {pairing}")
    console.print(law_table(fits))
    if any(isinstance(early, Forecast) for fit in fits for early in fit.early.values()):
        console.print(early_table(fits))
    for note in notes(fits):
        console.print(note)
    if line is not None:
        console.print(size_table(line, sorted({*sizes, *([target] if target else [])})))
    if output is not None:
        _write(fits, output)
        console.print(f"Figure and tables: {legible(output)}")
    return 0


def _sources(words: Sequence[str]) -> list[Path]:
    """Return the runs that words stand for: each is a run, or a folder of runs."""
    sources: list[Path] = []
    for path in map(Path, words):
        runs = [] if os.path.exists(path / "metrics.jsonl") else runs_in(path)
        sources += runs or [path]
    if not sources:
        raise UsageError(
            "`ecrl law RUN…` takes at least one run directory, CSV, JSONL or TensorBoard folder."
        )
    for i, source in enumerate(sources):
        if source in sources[:i]:
            raise UsageError(f"{source} stands twice; name each run once.")
    return sources


def _fit(sources: Sequence[Path], settings: Settings) -> list[Fitted]:
    columns = {"iteration": settings.iteration} if settings.iteration is not None else None
    names = [legible(source.resolve().name) for source in sources]
    fits: list[Fitted] = []
    for source, name in zip(sources, names, strict=True):
        series = read_series(source, columns=columns)
        points = pair(series, settings.reward, settings.entropy, settings.smooth)
        if fits and points.reward_name != fits[0].points.reward_name:
            raise UsageError(
                f"{source} has {points.reward_name!r} where {sources[0]} has {fits[0].points.reward_name!r}; "
                "their laws cannot be compared. Name one that all have: reward=COLUMN."
            )
        label = name if names.count(name) == 1 else legible(source)
        fits.append(Fitted(label, points, points.law(), {share: _early(points, share) for share in SHARES}))
    return fits


def _early(points: Points, share: float) -> Forecast | str:
    try:
        return forecast(points.entropy, points.reward, share)
    except ValueError as error:
        return str(error)


def _write(fits: Sequence[Fitted], output: Path) -> None:
    """Write ``law.png``, ``law.csv`` (a row a run) and ``points.csv`` (a row a point)."""
    clouds = [Cloud(fit.name, fit.points.entropy, fit.points.reward, fit.law) for fit in fits]
    figure = hr_figure(clouds, reward=fits[0].points.reward_name)
    points = [
        (fit.name, t, h, r, y)
        for fit in fits
        for t, h, r, y in zip(
            fit.points.iteration.tolist(),
            fit.points.entropy.tolist(),
            fit.points.reward.tolist(),
            fit.law.predict(fit.points.entropy).tolist(),
            strict=True,
        )
    ]
    laws = [_flat(fit) for fit in fits]
    with writing(output, "output"):
        output.mkdir(parents=True)
        figure.savefig(output / "law.png", dpi=120)
        write_csv(output / "law.csv", list(laws[0]), [list(law.values()) for law in laws])
        write_csv(output / "points.csv", ["run", "iteration", "entropy", "reward", "fitted"], points)


def _flat(fit: Fitted) -> dict[str, Any]:
    law = fit.law
    row: dict[str, Any] = {"run": fit.name, "source": str(fit.points.series.source)}
    row |= {"reward": fit.points.reward_name, "entropy": fit.points.entropy_name, "smooth": fit.points.width}
    for name in ("a", "b", "ceiling"):
        low, high = getattr(law, f"{name}_interval")
        row |= {name: getattr(law, name), f"{name}_se": getattr(law, f"{name}_se")}
        row |= {f"{name}_low": low, f"{name}_high": high}
    row |= {"r2": law.r2, "rmse": law.rmse, "autocorrelation": law.autocorrelation, "points": law.points}
    for share, early in fit.early.items():
        rmse, error = (None, None) if isinstance(early, str) else (early.rmse, early.final_error)
        row |= {f"early_{share:g}_rmse": rmse, f"early_{share:g}_final_error": error}
    return row
