"""How to make the runs of a report again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ecrl.config.compose import build_config, options
from ecrl.errors import UsageError
from ecrl.report.data import Comparison
from ecrl.report.runs import Run, flat
from ecrl.sweep.definition import NAME

_HIDDEN = ("run_dir", "resume", "output")


def commands(comparison: Comparison, sweep: Path | None, report: Sequence[str]) -> list[str]:
    """Lines for a shell that make the runs, and then the report.

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
    lines = [line for run in runs for line in _train(run)]
    return [*lines, last]


def _train(run: Run) -> list[str]:
    words = train_overrides(run.settings)
    if words is None:
        return [f"# {run.path}: no command of this installation makes it; see its config.yaml"]
    command = ["ecrl", "train", *words, f"iterations={run.last}", f"run_dir={run.path}"]
    return [shlex.join(command)]


def train_overrides(settings: Mapping[str, Any]) -> list[str] | None:
    """The fewest overrides that compose to these settings, but for ``iterations`` and where a run goes.

    Args:
        settings: by dotted key.

    Returns:
        The overrides; None where none compose to them here.
    """
    wanted = {k: v for k, v in settings.items() if k not in (*_HIDDEN, "iterations")}
    words = []
    for group, default in (("engine", "hf"), ("objective", "grpo")):
        node = frozenset(str(item) for item in wanted.items() if item[0].startswith(f"{group}."))
        distance = {name: len(node ^ _preset(group, name)) for name in (default, *options(group))}
        best = min(distance, key=lambda name: distance[name])
        words += [f"{group}={best}"] if best != default else []
    words.append("strategy=[]")
    try:
        base = dict(flat(asdict(build_config(words))))
        words += [f"{k}={_written(v)}" for k, v in wanted.items() if k not in base or base[k] != v]
        made = dict(flat(asdict(build_config(words))))
    except UsageError:
        return None
    same = all(made.get(key) == value for key, value in wanted.items())
    return words if same else None


@cache
def _preset(group: str, name: str) -> frozenset[str]:
    node = {group: getattr(build_config([f"{group}={name}", "strategy=[]"]), group)}
    return frozenset(map(str, flat(node)))


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    # Quotes where another reading is possible: as a number, or as true, false or null.
    if isinstance(value, str) and not re.fullmatch(r"(?!true$|false$|null$)[A-Za-z_][\w./-]*", value):
        return "'" + value.replace("'", "\\'") + "'"
    return value if isinstance(value, str) else json.dumps(value)
