"""Reads the runs of a report and groups them into arms: the runs of an arm differ in the seed only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecrl.analysis import Floats
from ecrl.analysis.series import is_number
from ecrl.config.eval_sets import VALIDATION_MEAN
from ecrl.config.keys import is_below
from ecrl.config.limits import leaves
from ecrl.config.resume import free_keys, saved_config
from ecrl.errors import UsageError
from ecrl.report.names import Named, arm_names, varied, without_seed
from ecrl.runs.metrics_file import read_metrics, read_summary

ENTROPY = "policy/entropy"
REWARD = "rollout/reward"
#: Settings in which runs of one arm may differ, beside those that a resumed run may change.
_SAME_ARM = ("seed", "run_dir", "output")
#: Settings in which compared runs must agree; otherwise their figures measure different things.
_COMPARED = (
    "env", "eval.problems", "eval.k", "eval.temperature", "eval.top_p", "eval.max_new_tokens", "eval.sets",
)  # fmt: skip


@dataclass(frozen=True)
class Fork:
    """The checkpoint that a run began with.

    Attributes:
        run_dir: folder of the run that wrote it.
        iteration: of the checkpoint, as that run counts.
        parent: that run; None if it cannot be read.
    """

    run_dir: Path
    iteration: int
    parent: Run | None

    @property
    def identity(self) -> object:
        """What all runs of an arm have in common."""
        name = without_seed(self.run_dir) or self.run_dir.name
        return self.parent.identity if self.parent else name, self.iteration


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: the directory.
        seed: its random seed.
        settings: its configuration, by dotted key.
        free: keys of settings that a resumed run may change, with all keys below them.
        iteration: ``[T]`` ascending, as the run counts; 0 is the validation before its first iteration.
        columns: metrics ``[T]`` by name; NaN where not measured.
        versions: of the packages it ran with; empty if it wrote no summary.
        fork: the checkpoint that it began with; None if it began with the model.
        before: iterations that made that checkpoint; a fork's own are counted on from them.
    """

    path: Path
    seed: int
    settings: dict[str, Any]
    free: tuple[str, ...]
    iteration: NDArray[np.int64]
    columns: dict[str, Floats]
    versions: dict[str, str]
    fork: Fork | None = None
    before: int = 0

    @property
    def last(self) -> int:
        """The last iteration, as the run counts."""
        return int(self.iteration[-1])

    @property
    def counted(self) -> NDArray[np.int64]:
        """``[T]`` iterations, those before a fork among them."""
        return self.iteration + self.before

    @property
    def end(self) -> int:
        """The last iteration, those before a fork among them."""
        return self.last + self.before

    @property
    def origin(self) -> Run | None:
        """The run that began with the model: itself, or what it was forked from; None if unreadable."""
        if self.fork is None:
            return self
        return self.fork.parent.origin if self.fork.parent else None

    @property
    def kind(self) -> dict[str, Any]:
        """The settings that all runs of its arm share."""
        return {k: v for k, v in self.settings.items() if not is_below(k, (*_SAME_ARM, *self.free))}

    @property
    def identity(self) -> object:
        """What all runs of its arm have in common."""
        return self.kind, self.fork and self.fork.identity


@dataclass(frozen=True)
class Arm:
    """The runs that differ in nothing but the seed.

    Attributes:
        name: shown everywhere.
        runs: by seed.
    """

    name: str
    runs: dict[int, Run]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of its first run."""
        return next(iter(self.runs.values())).settings


def read_run(path: Path) -> Run:
    """Read a run directory, and that of the run that it was forked from.

    Raises:
        UsageError: something is missing, malformed or not finite; names the file.
    """
    return _read(path, frozenset())


def _read(path: Path, seen: frozenset[str]) -> Run:
    """Read a run; ``seen`` are its forks, which it cannot be forked from."""
    iteration, columns = _metrics(path / "metrics.jsonl")
    config = saved_config(path / "config.yaml")
    fork = _fork(config, path, seen | {os.path.realpath(path)})
    parent = fork.parent if fork else None
    settings = _settings(config, path)
    del settings["fork"]
    if parent:  # a fork names the model that its parent made
        settings["model.path"] = parent.settings["model.path"]
    return Run(
        path=path,
        seed=int(config.seed),
        settings=settings,
        free=free_keys(config),
        iteration=iteration,
        columns=columns,
        versions=_versions(path),
        fork=fork,
        before=(fork.iteration if fork else 0) + (parent.before if parent else 0),
    )


def _fork(config: Any, path: Path, seen: frozenset[str]) -> Fork | None:
    """Find the run that a fork names: where it was, or beside the fork."""
    if config.fork is None or not str(config.checkpoint.load).isdecimal():
        return None
    named, parent = Path(config.fork), None
    for folder in (named, path.parent / named.name):
        if os.path.isfile(folder / "config.yaml") and os.path.realpath(folder) not in seen:
            try:
                parent = _read(folder, seen)
                break
            except UsageError:  # the report is about the fork
                continue
    return Fork(named, int(config.checkpoint.load), parent)


def group(runs: Sequence[Run], names: Mapping[Path, str]) -> list[Arm]:
    """Group runs into arms, in order of appearance.

    Args:
        runs: of the report.
        names: name of the arm of each run directory that a sweep made.

    Raises:
        UsageError: runs that cannot be compared, or a seed twice in an arm; names the runs.
    """
    _check_comparable(runs)
    found: list[dict[int, Run]] = []
    for run in runs:
        arm = next((a for a in found if next(iter(a.values())).identity == run.identity), None)
        if arm is None:
            found.append({run.seed: run})
        elif run.seed in arm:
            raise UsageError(
                f"{arm[run.seed].path} and {run.path} are one and the same run, seed {run.seed}; name only "
                "one of them."
            )
        else:
            arm[run.seed] = run
    return [Arm(n, runs) for n, runs in zip(_names(found, names), found, strict=True)]


def _names(arms: Sequence[Mapping[int, Run]], known: Mapping[Path, str]) -> list[str]:
    named = []
    for runs in arms:
        first = next(iter(runs.values()))
        named.append(Named({seed: run.path for seed, run in runs.items()}, first.kind))
    return arm_names(named, known)


def differences(arms: Sequence[Arm]) -> dict[str, list[Any]]:
    """Return the settings in which arms differ: key → value in each arm, None if an arm lacks the key."""
    return varied([next(iter(arm.runs.values())).kind for arm in arms])


def _metrics(file: Path) -> tuple[NDArray[np.int64], dict[str, Floats]]:
    """Read iterations and columns, and check that they make a curve."""
    rows = read_metrics(file)
    iteration = np.array([row["iteration"] for row in rows], np.int64)
    if len(rows) < 2 or iteration[-1] < 2:
        raise UsageError(
            f"{file}: a curve takes at least 2 iterations, got {max(iteration, default=0)}. Resume the run, "
            "or name only the others."
        )
    if (np.diff(iteration) <= 0).any():
        at = int(np.flatnonzero(np.diff(iteration) <= 0)[0]) + 2
        raise UsageError(f"{file}, line {at}: iterations must ascend, got {iteration[at - 1]} again.")
    names = sorted({name for row in rows for name in row} - {"iteration"})
    columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
    for name in (ENTROPY, REWARD):
        if name not in columns:
            raise UsageError(f"{file} has no {name!r}; a report needs it in every iteration.")
        gaps = np.flatnonzero(~np.isfinite(columns[name]) & (iteration > 0))
        if len(gaps):
            raise UsageError(f"{file}: {name!r} is no finite number in iteration {iteration[gaps[0]]}.")
    return iteration, columns


def _number(value: Any) -> float:
    return float(value) if is_number(value) and not isinstance(value, bool) else float("nan")


def _settings(config: Any, path: Path) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"{path / 'config.yaml'} cannot be read: {' '.join(str(error).split())}") from None
    return {key: value for key, value, _ in leaves(plain)}


def _versions(path: Path) -> dict[str, str]:
    summary = read_summary(path) or {"versions": {}}
    return {k: str(v) for k, v in summary["versions"].items()}


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        pair = f"{first.path} and {run.path} cannot be compared"
        for key in sorted({k for r in (first, run) for k in r.settings if is_below(k, _COMPARED)}):
            if (a := first.settings.get(key)) != (b := run.settings.get(key)):
                raise UsageError(f"{pair}: {key} is {a!r} in the first, {b!r} in the second.")
        # Older runs have no mean over the sets; those that have one agree in it if they agree in the sets.
        ours, theirs = (
            {n for n in r.columns if n.startswith("val/")} - {VALIDATION_MEAN} for r in (first, run)
        )
        if ours != theirs:
            name = min(ours ^ theirs)
            which = "first" if name in ours else "second"
            raise UsageError(f"{pair}: only the {which} has the metric {name!r}.")
