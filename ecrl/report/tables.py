"""The tables of a report; rendered as HTML, Markdown and CSV elsewhere."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecrl.analysis.stats import Interval, interval, paired
from ecrl.history import is_wall_time
from ecrl.report.data import CONFIDENCE, FINAL, Comparison
from ecrl.report.figures import ceiling_of
from ecrl.report.runs import ENTROPY, REWARD, differences, is_below

_TOPS = ("cov/mean", "cov/q50", "cov/q90", "cov/q99", "cov/top_20%", "cov/top_2%", "cov/top_0.2%")


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        name: of its place in the page.
        title: what it shows.
        header: of the columns; the first names the rows.
        rows: of cells.
        note: how to read it.
        strong: (row, column) of the cells to stress.
        arms: which arm a row is about, for its colour; None for others.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    strong: set[tuple[int, int]] = field(default_factory=set)
    arms: list[int | None] = field(default_factory=list)


def figures(comparison: Comparison) -> list[str]:
    """Metrics of the final table."""
    names = [ENTROPY, REWARD]
    for task in comparison.tasks:
        for kind in ("avg", "pass"):
            names += [f"val/{task}/{kind}@{k}" for k in comparison.ks(task, kind)[-1:]]
        names += [f"val/{task}/greedy"]
    return [n for n in [*names, "rollout/length"] if n in comparison.names]


def finals(comparison: Comparison) -> Table:
    """Final figures by arm."""
    names = figures(comparison)
    rows = [["before RL", *(_mean(comparison.starts(n)) for n in names)]]
    rows += [[arm.name, *(_mean(comparison.final(arm, n)) for n in names)] for arm in comparison.arms]
    note = (
        f"Mean over the last {FINAL:.0%} of the iterations, then over seeds; ± half of the "
        f"{CONFIDENCE:.0%} t interval over seeds."
    )
    arms: list[int | None] = [None, *range(len(comparison.arms))]
    return Table("final", "Final figures", ["arm", *_short(comparison, names)], rows, note, arms=arms)


def gains(comparison: Comparison) -> Table:
    """Paired differences to the baseline."""
    names = [name for name in figures(comparison) if name != "rollout/length"]
    rows, strong, tests = [], set(), 0
    for r, arm in enumerate(comparison.arms[1:]):
        found = [comparison.gain(arm, n) for n in names]
        shared = max((g.n for g in found if g), default=0)
        rows.append([arm.name, *map(_difference, found), str(shared)])
        tests += sum(g is not None and g.n > 1 for g in found)
        strong |= {(r, c) for c, g in enumerate(found, start=1) if g and g.excludes_zero}
    base = comparison.arms[0].name
    note = f"Final figure minus that of {base}, seed by seed."
    if tests:
        note = (
            f"{note[:-1]}; mean [{CONFIDENCE:.0%} t interval]. Bold: the interval excludes 0. Of {tests} "
            f"intervals, {tests * (1 - CONFIDENCE):.1f} would do so by chance."
        )
    header = ["arm", *_short(comparison, names), "seeds"]
    arms: list[int | None] = list(range(1, len(comparison.arms)))
    return Table("gains", f"Paired differences to {base}", header, rows, note, strong, arms)


def laws(comparison: Comparison) -> Table:
    """Fitted laws and ceilings."""
    reward, rows, notes = comparison.law_reward(), [], []
    strong: set[tuple[int, int]] = set()
    base: dict[int, float] = {}
    for r, arm in enumerate(comparison.arms):
        plane = comparison.plane(arm, reward)
        ceilings = {seed: law.ceiling for seed, law in plane.laws.items()}
        base = base if r else ceilings
        gain = paired(ceilings, base, CONFIDENCE) if r else None
        if gain and gain.excludes_zero:
            strong.add((r, 4))
        notes += [f"{arm.name}, {reason}" for reason in plane.reasons]
        if plane.laws:
            fits = list(plane.laws.values())
            a, b, r2, rmse = (interval([getattr(f, x) for f in fits]) for x in ("a", "b", "r2", "rmse"))
            cells = [
                _mean(a),
                _mean(b),
                _mean(ceiling_of(plane.laws)),
                _difference(gain),
                _mean(comparison.final(arm, reward)),
            ]
            cells += [f"{r2.mean:.2f}", f"{rmse.mean:.3f}", str(len(fits))]
        else:
            cells = ["no fit", *[""] * 7]
        rows.append([arm.name, *cells])
    note = (
        f"R = −a·exp(H) + b with R = {reward}, fitted to each seed; mean over seeds ± half of its "
        f"{CONFIDENCE:.0%} t interval (one seed: of the fit's own interval). Ceiling: −a + b, R at H = 0; "
        "to baseline: its paired difference. " + " ".join(notes)
    )
    header = ["arm", "a", "b", "ceiling", "to baseline", "reached", "R²", "RMSE", "seeds fitted"]
    return Table("law", "The entropy law", header, rows, note.strip(), strong, list(range(len(rows))))


def covariance(comparison: Comparison) -> Table | None:
    """Token covariance by arm; None where it was not measured."""
    names = [n for n in _TOPS if n in comparison.names]
    if not names:
        return None
    rows = [[arm.name, *(_mean(comparison.final(arm, n)) for n in names)] for arm in comparison.arms]
    note = (
        "Cov_i = (log π_i − mean)·(A_i − mean) over the tokens of a rollout's first optimizer minibatch, "
        f"nats: quantiles, and means of the tokens with the highest. Last {FINAL:.0%} of the iterations."
    )
    header = ["arm", *(n.removeprefix("cov/").replace("_", " ") for n in names)]
    return Table("covariance", "Token covariance at the end", header, rows, note, arms=list(range(len(rows))))


def settings(comparison: Comparison) -> Table:
    """Settings in which arms differ."""
    varied = differences(comparison.arms)
    rows = [[key, *map(_value, values)] for key, values in varied.items()]
    header = ["setting", *(arm.name for arm in comparison.arms)]
    return Table(
        "settings", "Settings in which the arms differ", header, rows, "–: null, or no such setting."
    )


def common(comparison: Comparison) -> Table:
    """Settings that all arms share."""
    varied = differences(comparison.arms)
    whole = comparison.arms[0].settings
    hidden = ("seed", "run_dir", "output", "resume", "iterations")
    rows = [[k, _value(v)] for k, v in whole.items() if k not in varied and not is_below(k, hidden)]
    return Table("common", "Settings that all share", ["setting", "value"], rows)


def versions(comparison: Comparison) -> Table:
    """Package versions, with the runs that have them where they differ."""
    found: dict[str, dict[str, list[str]]] = {}
    for arm in comparison.arms:
        for run in arm.runs.values():
            for package, version in run.versions.items():
                found.setdefault(package, {}).setdefault(version, []).append(run.path.name)
    rows = []
    for package, by in found.items():
        shown = [v if len(by) == 1 else f"{v} ({', '.join(runs)})" for v, runs in by.items()]
        rows.append([package, "; ".join(shown)])
    return Table("versions", "Versions", ["package", "version"], rows)


def runs(comparison: Comparison) -> Table:
    """The runs read."""
    rows = [
        [arm.name, str(seed), str(run.last), str(run.path)]
        for arm in comparison.arms
        for seed, run in sorted(arm.runs.items())
    ]
    return Table("runs", "Runs", ["arm", "seed", "iterations", "directory"], rows)


def write_csv(comparison: Comparison, folder: Path) -> None:
    """Write curves and figures in long form: one number a line, with its interval."""
    curves, numbers = [], []
    for arm in comparison.arms:
        for name in (n for n in comparison.names if not is_wall_time(n)):
            curve = comparison.curve(arm, name)
            if curve is None:
                continue
            b = curve.band
            for t, mean, low, high, n in zip(curve.iteration, b.mean, b.low, b.high, b.n, strict=True):
                curves.append([arm.name, name, t, mean, low, high, n])
            for seed, value in sorted(comparison.finals(arm, name).items()):
                numbers.append([arm.name, name, "final", seed, value, "", ""])
            for kind, of in (
                ("final", comparison.final(arm, name)),
                ("difference", comparison.gain(arm, name)),
            ):
                if of and not (kind == "difference" and arm is comparison.arms[0]):
                    numbers.append([arm.name, name, kind, "all", of.mean, of.low, of.high])
    _csv(folder / "curves.csv", ["arm", "metric", "iteration", "mean", "low", "high", "seeds"], curves)
    _csv(folder / "final.csv", ["arm", "metric", "kind", "seed", "value", "low", "high"], numbers)


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[_exact(cell) for cell in row] for row in rows])


def _exact(cell: Any) -> Any:
    return cell if not isinstance(cell, float) else "" if math.isnan(cell) else f"{cell:.7g}"


def _short(comparison: Comparison, names: Sequence[str]) -> list[str]:
    words = {ENTROPY: "entropy, nats", REWARD: "training reward", "rollout/length": "length, tokens"}
    only = f"val/{comparison.tasks[0]}/" if len(comparison.tasks) == 1 else "val/"
    return [words.get(name, name.removeprefix(only).replace("/", " ")) for name in names]


def _digits(of: Interval) -> int:
    """Decimals that show three figures of the mean, 2 to 4."""
    return 3 if abs(of.mean) < 10 else 2


def _mean(of: Interval | None) -> str:
    if of is None:
        return "–"
    d = _digits(of)
    return f"{of.mean:.{d}f}" + ("" if math.isnan(of.half) else f" ± {of.half:.{d}f}")


def _difference(of: Interval | None) -> str:
    if of is None:
        return "–"
    d = _digits(of)
    shown = f"{of.mean:+.{d}f}"
    return shown if math.isnan(of.low) else f"{shown} [{of.low:+.{d}f}, {of.high:+.{d}f}]"


def _value(value: Any) -> str:
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
