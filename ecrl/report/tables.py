"""The tables of a report, as text; ``page`` renders them as HTML and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecrl.analysis.stats import Interval, interval, paired
from ecrl.config.keys import is_below
from ecrl.report.data import CONFIDENCE, FINAL, Comparison, ceiling_of
from ecrl.report.forks import origin
from ecrl.report.runs import ENTROPY, REWARD, Run, differences

#: Settings that make no difference to a reader.
_HIDDEN = (
    "seed", "run_dir", "output", "resume", "iterations", "checkpoint", "log", "logger", "monitor",
    "trainer.timeout",
)  # fmt: skip
_TOPS = ("cov/mean", "cov/q50", "cov/q90", "cov/q99", "cov/top_20%", "cov/top_2%", "cov/top_0.2%")


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        name: id of the table in the page.
        title: what it shows.
        header: name of each column; the first column names the rows.
        rows: cells of each row.
        note: how to read it.
        strong: (row, column) of the cells in bold.
        arms: index of the arm of each row, for its colour; None for a row of no arm.
        words: whether its cells are words rather than numbers.
        texts: columns of text, in a table of numbers.
        links: where cells lead to on the page, by (row, column).
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    strong: set[tuple[int, int]] = field(default_factory=set)
    arms: list[int | None] = field(default_factory=list)
    words: bool = False
    texts: frozenset[int] = frozenset()
    links: dict[tuple[int, int], str] = field(default_factory=dict)


def figures(comparison: Comparison) -> list[str]:
    """Return the metrics of the final table."""
    names = [ENTROPY, REWARD, *comparison.means]
    for task in comparison.tasks:
        for kind in ("avg", "pass"):
            names += [f"val/{task}/{kind}@{k}" for k in comparison.ks(task, kind)[-1:]]
        names += [f"val/{task}/greedy"]
    return [n for n in [*names, "rollout/length"] if n in comparison.names]


def finals(comparison: Comparison) -> Table:
    """Return the table of the final figures; of one run alone, a row for each figure."""
    if comparison.alone:
        return _of_one_run(comparison, comparison.alone)
    names = figures(comparison)
    forks = {began: arm for arm in comparison.arms if (began := origin(comparison.arms, arm))}
    starts = [
        [comparison.before_rl(n), *(comparison.starts(arm.runs.values(), n) for arm in forks.values())]
        for n in names
    ]
    columns = [
        _cells([*first, *(comparison.final(arm, n) for arm in comparison.arms)], _mean)
        for n, first in zip(names, starts, strict=True)
    ]
    rows = _rows(["before RL", *forks, *(arm.name for arm in comparison.arms)], columns)
    note = (
        f"Mean over the last {FINAL:.0%} of the iterations, then over seeds; ± half of the "
        f"{CONFIDENCE:.0%} t interval over seeds."
    )
    arms = [*[None] * (1 + len(forks)), *(i for i, _ in comparison.numbered)]
    return Table("final", "Final figures", ["arm", *_short(comparison, names)], rows, note, arms=arms)


def _of_one_run(comparison: Comparison, run: Run) -> Table:
    rows = []
    for name, short in zip(names := figures(comparison), _short(comparison, names), strict=True):
        t, v = comparison.measured(run, name)
        end = comparison.finals(comparison.arms[0], name).get(run.seed, math.nan)
        numbers = [comparison.start(run, name), end, *([v.max()] if name.startswith("val/") else [])]
        column = [None if math.isnan(x) else Interval(float(x), math.nan, math.nan, 1) for x in numbers]
        start, last, *best = _cells(column, _alone)
        rows.append([short, start, last, f"{best[0]} (iteration {t[v.argmax()]})" if best else "–"])
    first = "the first iteration" if run.fork else "RL"
    note = (
        f"Start: the validation before {first}, or the mean of the first {comparison.width} iterations. End: "
        f"the mean over the last {FINAL:.0%} of the iterations. Best: the highest validation; chance favours "
        "it."
    )
    return Table("final", "From the start to the end", ["figure", "start", "end", "best"], rows, note)


def gains(comparison: Comparison) -> Table:
    """Return the table of the paired differences to the baseline."""
    names = [name for name in figures(comparison) if name != "rollout/length"]
    others = comparison.arms[1:]
    found = [[comparison.gain(arm, n) for arm in others] for n in names]
    shared = [str(max((g.n for g in row if g), default=0)) for row in zip(*found, strict=True)]
    rows = _rows([arm.name for arm in others], [*(_cells(column, _difference) for column in found), shared])
    tests = sum(g is not None and g.n > 1 for column in found for g in column)
    strong = {
        (r, c) for c, column in enumerate(found, 1) for r, g in enumerate(column) if g and g.excludes_zero
    }
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
    """Return the table of the fitted laws and their ceilings."""
    reward, arms = comparison.law_reward(), comparison.arms
    planes = [comparison.plane(arm, reward) for arm in arms]
    fits = [list(plane.laws.values()) for plane in planes]
    a, b, r2, rmse = (
        [interval([getattr(law, x) for law in some]) if some else None for some in fits]
        for x in ("a", "b", "r2", "rmse")
    )
    ceilings = [{seed: law.ceiling for seed, law in plane.laws.items()} for plane in planes]
    gained = [None, *(paired(own, ceilings[0], CONFIDENCE) for own in ceilings[1:])]
    columns = [
        _cells(a, _mean),
        _cells(b, _mean),
        _cells([ceiling_of(plane.laws) if plane.laws else None for plane in planes], _mean),
        _cells(gained, _difference),
        _cells([comparison.final(arm, reward) for arm in arms], _mean),
        _cells(r2, _alone),
        _cells(rmse, _alone),
        [str(len(some)) for some in fits],
    ]
    rows = _rows([arm.name for arm in arms], columns)
    strong = {(r, 4) for r, gain in enumerate(gained) if gain and gain.excludes_zero}
    notes = [f"{arm.name}, {why}" for arm, p in zip(arms, planes, strict=True) for why in p.reasons]
    each = (
        ""
        if comparison.alone
        else (
            f" to each seed; mean over seeds ± half of its {CONFIDENCE:.0%} t interval (one seed: of the "
            "fit's own interval); to baseline: the ceiling's paired difference"
        )
    )
    ceiling = (
        f"Ceiling: −a + b, R at H = 0{', ± half of the interval of the fit' if comparison.alone else ''}."
    )
    note = f"R = −a·exp(H) + b with R = {reward}, fitted{each}. {ceiling} {' '.join(notes)}"
    header = ["arm", "a", "b", "ceiling", "to baseline", "reached", "R²", "RMSE", "seeds fitted"]
    table = Table("law", "The entropy law", header, rows, note.strip(), strong, _colours(comparison))
    return _without_arm(table) if comparison.alone else table


def covariance(comparison: Comparison) -> Table | None:
    """Return the table of the token covariance; None if it was not measured."""
    names = [n for n in _TOPS if n in comparison.names]
    if not names:
        return None
    columns = [_cells([comparison.final(arm, n) for arm in comparison.arms], _mean) for n in names]
    rows = _rows([arm.name for arm in comparison.arms], columns)
    note = (
        "Cov_i = (log π_i − mean)·(A_i − mean) over the tokens of a rollout's first optimizer minibatch, "
        f"nats: quantiles, and means of the tokens with the highest. Last {FINAL:.0%} of the iterations."
    )
    header = ["arm", *(n.removeprefix("cov/").replace("_", " ") for n in names)]
    title = "Token covariance at the end"
    table = Table("covariance", title, header, rows, note, arms=_colours(comparison))
    return _without_arm(table) if comparison.alone else table


def _colours(comparison: Comparison) -> list[int | None]:
    return [i for i, _ in comparison.numbered]


def _without_arm(table: Table) -> Table:
    """Leave out what one run alone has nothing to say in."""
    kept = [c for c, name in enumerate(table.header) if name not in ("arm", "to baseline", "seeds fitted")]
    header, *rows = ([row[c] for c in kept] for row in (table.header, *table.rows))
    return Table(table.name, table.title, header, rows, table.note, words=table.words)


def settings(comparison: Comparison) -> Table:
    """Return the table of the settings in which arms differ."""
    varied = differences(comparison.arms)
    began = [origin(comparison.arms, arm) for arm in comparison.arms]
    rows = [["fork of", *(_value(text) for text in began)]] if any(began) else []
    rows += [
        [
            key.removesuffix("._target_"),
            *(_class(v) if key.endswith("_target_") else _value(v) for v in values),
        ]
        for key, values in varied.items()
    ]
    header = ["setting", *(arm.name for arm in comparison.arms)]
    note = "–: null, or no such setting."
    return Table("settings", "Settings in which the arms differ", header, rows, note, words=True)


def common(comparison: Comparison) -> Table:
    """Return the table of the settings that all runs share, but for those of files and of what is shown."""
    whole, *others = [run.settings for arm in comparison.arms for run in arm.runs.values()]
    rows = [
        [key, _value(value)]
        for key, value in whole.items()
        if not is_below(key, _HIDDEN) and all(key in of and of[key] == value for of in others)
    ]
    title = "Settings" if comparison.alone else "Settings that all share"
    return Table("common", title, ["setting", "value"], rows, words=True)


def versions(comparison: Comparison) -> Table:
    """Return the table of package versions; where they differ, each with its runs."""
    found: dict[str, dict[str, list[str]]] = {}
    for arm in comparison.arms:
        for run in arm.runs.values():
            for package, version in run.versions.items():
                found.setdefault(package, {}).setdefault(version, []).append(run.path.name)
    rows = []
    for package, by in found.items():
        shown = [v if len(by) == 1 else f"{v} ({', '.join(runs)})" for v, runs in by.items()]
        rows.append([package, "; ".join(shown)])
    return Table("versions", "Versions", ["package", "version"], rows, words=True)


def runs(comparison: Comparison) -> Table:
    """Return the table of all runs."""
    rows = [
        [arm.name, str(seed), f"{run.before} + {run.last}" if run.before else str(run.last), str(run.path)]
        for arm in comparison.arms
        for seed, run in sorted(arm.runs.items())
    ]
    header = ["arm", "seed", "iterations", "directory"]
    table = Table("runs", "Run" if comparison.alone else "Runs", header, rows, words=True)
    return _without_arm(table) if comparison.alone else table


def _short(comparison: Comparison, names: Sequence[str]) -> list[str]:
    words = {ENTROPY: "entropy, nats", REWARD: "training reward", "rollout/length": "length, tokens"}
    only = f"val/{comparison.tasks[0]}/" if len(comparison.tasks) == 1 else "val/"
    return [words.get(name, name.removeprefix(only).replace("/", " ")) for name in names]


def _rows(names: Sequence[str], columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Turn columns of cells into rows that begin with a name."""
    return [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]


def _decimals(column: Sequence[Interval | None]) -> int:
    """Return the decimals of a column: every cell shows three digits or more of its mean or its half-width.

    The larger of the two counts. Values below 1e-9 are rounding noise and ask for no digits.
    """
    # max() keeps its first argument if the second is NaN.
    sizes = [max(abs(of.mean), of.half) for of in column if of]
    least = min((size for size in sizes if size > 1e-9), default=1.0)
    return max(3 if least < 10 else 2, 2 - math.floor(math.log10(least)))


def _cells(column: Sequence[Interval | None], show: Callable[[Interval, int], str]) -> list[str]:
    """Return the cells of a column, all with the same number of decimals."""
    decimals = _decimals(column)
    return ["–" if of is None else show(of, decimals) for of in column]


def _alone(of: Interval, d: int) -> str:
    return f"{of.mean:z.{d}f}"


def _mean(of: Interval, d: int) -> str:
    return _alone(of, d) + ("" if math.isnan(of.half) else f" ± {of.half:.{d}f}")


def _difference(of: Interval, d: int) -> str:
    shown = f"{of.mean:+z.{d}f}"
    return shown if math.isnan(of.low) else f"{shown} [{of.low:+z.{d}f}, {of.high:+z.{d}f}]"


def _value(value: Any) -> str:
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _class(target: Any) -> str:
    """Return the name of a class or function without its module."""
    return _value(target).rpartition(".")[2]
