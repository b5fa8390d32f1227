"""Reads run directories and writes the files of a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecrl.errors import UsageError
from ecrl.report import atlas, tables
from ecrl.report.csv_files import write_numbers
from ecrl.report.curves import BANDS
from ecrl.report.data import MANY, Comparison, compare
from ecrl.report.figures import draw
from ecrl.report.markdown import markdown
from ecrl.report.page import Content, html
from ecrl.report.reproduce import commands
from ecrl.report.runs import group, read_run
from ecrl.report.samples import moments
from ecrl.report.summary import summary
from ecrl.runs.metrics_file import legible, read_summary, runs_in
from ecrl.runs.os_errors import writing
from ecrl.sweep.definition import NAME, make_sweep, read_sweep

PAGE = "index.html"
FIGURES = "figures"


@dataclass
class Sources:
    """The run directories of a report.

    Attributes:
        paths: run directories, in order.
        names: name of the arm of each run directory that a sweep made.
        notes: what a reader must know about them, a sentence each.
        sweep: folder of the sweep, if one sweep made them all.
    """

    paths: list[Path] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sweep: Path | None = None


def find_runs(given: Sequence[Path]) -> Sources:
    """Find the run directories that paths stand for: a run, a sweep, or a folder of runs.

    Raises:
        UsageError: there is none; names the path.
    """
    sources = Sources()
    for path in given:
        if _holds(path, NAME):
            _add_sweep(sources, path)
        elif _holds(path, "metrics.jsonl") or _holds(path, "config.yaml"):
            sources.paths.append(path)
        else:
            found = runs_in(path)
            if not found:
                raise UsageError(
                    f"{path} is neither a run (no metrics.jsonl), nor a sweep, nor a folder of runs."
                )
            sources.paths += found
    sources.sweep = given[0] if len(given) == 1 and _holds(given[0], NAME) else None
    return sources


def write_report(
    given: Sequence[Path], output: Path, *, baseline: str | None = None, title: str = "Entropy report"
) -> Path:
    """Write ``index.html``, ``report.md``, and the figures as SVG and CSV.

    Args:
        given: run directories, sweeps, or folders of runs.
        output: a folder that is new, empty or holds an older report.
        baseline: arm that differences are taken to; None for the first.
        title: title of the page.

    Returns:
        The path of the HTML page.

    Raises:
        UsageError: runs that cannot be read or compared, or an output that holds something else.
    """
    words = [*map(str, given), f"output={output}"]
    # Resolved first: `new/../runs` does not exist until `new` is made.
    output = Path(os.path.realpath(output))
    _check_output(output)
    sources = find_runs(given)
    comparison = compare(group([read_run(path) for path in sources.paths], sources.names), baseline)
    words += [f"baseline={baseline}"] if baseline is not None else []
    definition = (sources.sweep / NAME).read_text() if sources.sweep else ""
    places = atlas.atlas(comparison) if len(comparison.arms) > MANY else []
    samples, unread = moments(comparison)
    content = Content(
        title=title,
        subtitle=_subtitle(comparison),
        notes=[*sources.notes, *comparison.notes, *unread],
        summary=summary(comparison, places),
        headline=[atlas.table(places)] if places else _headline(comparison),
        pictures=draw(comparison, atlas.pictures(places) if places else []),
        bands=_bands(comparison),
        samples=samples,
        results=_results(comparison),
        methods=atlas.methods_of(places),
        details=_details(comparison),
        commands=commands(comparison, sources.sweep, words),
        definition=definition,
    )
    with writing(output, "output"):
        (output / FIGURES).mkdir(parents=True, exist_ok=True)
        for picture in content.pictures:
            picture.save(output / FIGURES)
        write_numbers(comparison, output)
        pages = {"report.md": markdown(content, FIGURES), NAME: definition, PAGE: html(content)}
        for name, text in pages.items():
            if text:
                # A name may hold bytes that are not UTF-8.
                (output / name).write_text(text, encoding="utf-8", errors="replace")
    return output / PAGE


def _add_sweep(sources: Sources, folder: Path) -> None:
    """Add the finished cells of a sweep; if none is finished, all that have begun."""
    sweep = make_sweep(read_sweep(folder / NAME), str(folder / NAME))
    cells = {folder / f"{arm}-{seed}": arm for arm in sweep.arms for seed in sweep.seeds}
    begun = [path for path in cells if (path / "metrics.jsonl").exists()]
    if not begun:
        raise UsageError(f"{folder} holds no run yet; begin with: ecrl sweep {folder}")
    shown = [path for path in begun if _is_finished(path)] or begun
    sources.names |= cells
    sources.paths += shown
    left_out = [path.name for path in cells if path not in shown]
    if left_out:
        sources.notes.append(f"The sweep is not finished; left out: {', '.join(left_out)}.")


def _holds(folder: Path, name: str) -> bool:
    """Whether a folder holds a file of that name; False for a path that cannot be read."""
    return os.path.exists(folder / name)


def _check_output(output: Path) -> None:
    with writing(output, "output"):
        holds_other = output.exists() and not (output / PAGE).exists() and any(output.iterdir())
    if holds_other:
        raise UsageError(f"output={str(output)!r} exists and holds no report; choose another.")


def _is_finished(run_dir: Path) -> bool:
    summary = read_summary(run_dir)
    return summary is not None and summary["stopped_by"] is None


def _headline(comparison: Comparison) -> list[tables.Table]:
    several = [tables.gains(comparison), tables.settings(comparison)] if len(comparison.arms) > 1 else []
    return [tables.finals(comparison), *several]


def _results(comparison: Comparison) -> list[tables.Table]:
    return [t for t in (tables.laws(comparison), tables.covariance(comparison)) if t is not None]


def _details(comparison: Comparison) -> list[tables.Table]:
    # The atlas stands above the figures in their place.
    many = _headline(comparison) if len(comparison.arms) > MANY else []
    return [*many, *(f(comparison) for f in (tables.common, tables.versions, tables.runs))]


def _bands(comparison: Comparison) -> str:
    if max(len(arm.runs) for arm in comparison.arms) == 1:
        return ""
    few = len(comparison.arms) <= BANDS
    bands = (
        "Bands: pointwise 95 % t intervals over seeds."
        if few
        else (
            "Lines are means over seeds; their intervals are in the CSV files, for they would hide the lines."
        )
    )
    return f"{bands} Tokens and hours are means over the seeds of an arm."


def _subtitle(comparison: Comparison) -> str:
    arms, task = len(comparison.arms), comparison.arms[0].settings["env.id"]
    if run := comparison.alone:
        return f"{legible(run.path)}: {comparison.iterations} iterations on {task}, seed {run.seed}."
    counts = sorted({len(arm.runs) for arm in comparison.arms})
    seeds = "–".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
    what = f"{seeds} seed{'s' * (seeds != '1')}"
    base = f" Baseline: {comparison.arms[0].name}." if arms > 1 else ""
    what = f"{arms} arms × {what}" if arms > 1 else f"{comparison.arms[0].name}, {what}"
    how_far = "up to iteration {}" if any(run.before for run in comparison.runs) else "{} iterations each"
    return f"{what}, {how_far.format(comparison.iterations)}, on {task}.{base}"
