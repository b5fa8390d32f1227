"""The commands that make a report's runs again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ecrl.config.keys import key_of
from ecrl.report.data import Comparison
from ecrl.report.runs import Run
from ecrl.runs.commands import Command, read_commands
from ecrl.runs.metrics_file import legible
from ecrl.sweep.definition import NAME

#: Settings that each printed command gets anew.
_PLACED = ("run_dir", "resume", "iterations")


def commands(comparison: Comparison, sweep: Path | None, report: Sequence[str]) -> list[str]:
    """Return lines for a shell that make the runs, and then the report.

    Args:
        comparison: the runs.
        sweep: folder of the sweep that made them, if one did.
        report: words of the command that made the report.
    """
    last = shlex.join(["ecrl", "report", *report])
    if sweep is not None:
        folder = shlex.quote(str(sweep))
        return [f"ecrl sweep {NAME} output={folder}   # {NAME}: beside this page", last]
    runs = [run for arm in comparison.arms for _, run in sorted(arm.runs.items())]
    return [*(line for run in _with_parents(runs) for line in train_commands(run)), last]


def _with_parents(runs: Sequence[Run]) -> list[Run]:
    """Put before each fork the run that it began with, every run once."""
    given = {os.path.realpath(run.path): run for run in runs}
    found: dict[str, Run] = {}
    for run in runs:
        line = [run]
        while (fork := line[0].fork) and fork.parent:
            line.insert(0, fork.parent)
        for one in line:
            path = os.path.realpath(one.path)
            found.setdefault(path, given.get(path) or replace(one, path=_from_here(one.path)))
    return list(found.values())


def _from_here(path: Path) -> Path:
    """Return a path as it is typed in this folder, if it lies in it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def train_commands(run: Run) -> list[str]:
    """Return the commands that made a run; one in Python, from its configuration, where they were not saved.

    Raises:
        UsageError: the saved commands cannot be read.
    """
    saved = read_commands(run.path)
    if not saved or saved[0].iteration > 0:
        return _from_configuration(run)
    ends = [*(command.iteration for command in saved[1:]), run.last]
    # A command that ended where it began made no iteration.
    return [
        _train(command, end, run.path)
        for command, end in zip(saved, ends, strict=True)
        if command.iteration < end
    ]


def _from_configuration(run: Run) -> list[str]:
    """Return a program that makes a run again from its folder, but for objects that it got from Python."""
    again = run.path.with_name(f"{run.path.name}-again")
    program = (
        f"import ecrl; ecrl.train(ecrl.load_run({str(run.path)!r}).config, iterations={run.last}, "
        f"run_dir={str(again)!r})"
    )
    objects = "callbacks=[…] and strategies=[…]"
    return [
        f"# {legible(run.path)} was made from Python or by an older version; add {objects} if it had any:",
        shlex.join(["python", "-c", program]),
    ]


def _train(command: Command, end: int, run_dir: Path) -> str:
    """Return the command for the iterations up to ``end``, with the run in ``run_dir``."""
    kept = [word for word in command.words if key_of(word) not in _PLACED]
    place = f"resume={run_dir}" if command.iteration else f"run_dir={run_dir}"
    return shlex.join(["ecrl", "train", *kept, f"iterations={end}", place])
