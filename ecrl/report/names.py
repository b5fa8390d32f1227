"""Short names of a report's arms: what the sweep or the folders call them, or else the presets' names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecrl.config.groups import shipped
from ecrl.config.limits import leaves
from ecrl.runs.metrics_file import legible

#: A name made of settings is cut here; the table of settings has them all.
_LONGEST = 48
#: How `ecrl train` begins the name of a folder that the user has not named.
_STAMP = re.compile(r"\d{8}-\d{6}(-|$)")
#: What stands between an arm's name and the seed.
_BETWEEN = "[-_](?:seed)?|seed"


@dataclass(frozen=True)
class Named:
    """An arm that is to be named.

    Attributes:
        folders: of its runs, by seed.
        settings: that its runs share, by dotted key.
    """

    folders: Mapping[int, Path]
    settings: Mapping[str, Any]


def arm_names(arms: Sequence[Named], known: Mapping[Path, str]) -> list[str]:
    """Name arms, each differently.

    Args:
        arms: in order.
        known: name of the arm of each run directory that a sweep made.
    """
    given, presets = _given(arms, known), _presets(arms)
    names = [name or preset for name, preset in zip(given, presets, strict=True)]
    # Each only for those that are still called alike.
    for others in (presets, _with_settings(arms, presets), [_folder(arm) for arm in arms]):
        names = [
            other if names.count(name) > 1 and other else name
            for name, other in zip(names, others, strict=True)
        ]
    return _numbered(names)


def without_seed(folder: Path, seed: int | str = r"\d+", between: str = _BETWEEN) -> str | None:
    """Return NAME of a folder NAME-SEED, NAME_SEED or NAMEseedSEED; None if it is called otherwise."""
    match = re.fullmatch(rf"(.+?)(?:{between}){seed}", legible(folder.name))
    return match[1] if match else None


def preset_of(group: str, settings: Mapping[str, Any]) -> str | None:
    """Return the shipped preset that settings were made from.

    Args:
        group: such as ``strategy``.
        settings: by dotted key below the group.

    Returns:
        Of the presets whose settings are all among these, the one with most; None if there is none.
    """
    fitting = [
        name
        for name in shipped(group)
        if all(key in settings and settings[key] == value for key, value in _settings(group, name).items())
    ]
    return max(fitting, key=lambda name: len(_settings(group, name)), default=None)


def _settings(group: str, name: str) -> dict[str, Any]:
    return {key: value for key, value, _ in leaves(shipped(group)[name])}


def varied(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys whose values differ, with the value in each; None where there is no such key."""
    table = {key: [own.get(key) for own in settings] for own in settings for key in own}
    return {key: values for key, values in table.items() if any(v != values[0] for v in values)}


def _given(arms: Sequence[Named], known: Mapping[Path, str]) -> list[str | None]:
    """Return the names that the sweep or the folders give."""
    # Of one run alone, a number at the end is the seed only if all folders end with their seeds.
    seeded = all(map(_without_seeds, arms))
    names = []
    for arm in arms:
        name = _same([known.get(path) for path in arm.folders.values()])
        if not name and not any(_STAMP.match(path.name) for path in arm.folders.values()):
            name = _without_seeds(arm) if seeded or len(arm.folders) > 1 else _folder(arm)
        names.append(name)
    return names


def _folder(arm: Named) -> str | None:
    """Return the name of the folder of an arm of one run."""
    return _same([legible(path.name) for path in arm.folders.values()])


def _without_seeds(arm: Named) -> str | None:
    """Return the name that the folders of an arm share; several seeds may follow it directly."""
    between = "[-_]?(?:seed)?" if len(arm.folders) > 1 else _BETWEEN
    return _same([without_seed(path, seed, between) for seed, path in arm.folders.items()])


def _presets(arms: Sequence[Named]) -> list[str]:
    """Name arms by the presets of their strategies, and of their objectives where these differ."""
    objectives = {preset_of("objective", _below(arm.settings, "objective.")) for arm in arms}
    names = []
    for arm in arms:
        strategies = []
        for name in dict.fromkeys(key.split(".")[1] for key in arm.settings if key.startswith("strategy.")):
            preset = preset_of("strategy", _below(arm.settings, "strategy.", f"strategy.{name}."))
            strategies.append(preset or name)
        objective = preset_of("objective", _below(arm.settings, "objective."))
        parts = ["+".join(strategies) or "no strategy"]
        names.append(", ".join([*parts, *([objective] if objective and len(objectives) > 1 else [])]))
    return names


def _with_settings(arms: Sequence[Named], names: Sequence[str]) -> list[str]:
    """Add to names that are alike the settings in which their arms differ."""
    found = list(names)
    for name in set(names):
        alike = [i for i, other in enumerate(names) if other == name]
        for key, values in varied([arms[i].settings for i in alike]).items():
            for i, value in zip(alike, values, strict=True):
                if value is not None and not key.endswith("_target_"):
                    # Of a path only its end: the rest says more of a computer than of the arm.
                    found[i] += f", {key.rpartition('.')[2]}={str(value).rstrip('/').rpartition('/')[2]}"
    return [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in found]


def _below(settings: Mapping[str, Any], group: str, prefix: str | None = None) -> dict[str, Any]:
    """Return the settings that begin with a prefix, without the group."""
    return {k.removeprefix(group): v for k, v in settings.items() if k.startswith(prefix or group)}


def _same(names: Sequence[str | None]) -> str | None:
    """Return the name if there is but one."""
    return names[0] if len(set(names)) == 1 else None


def _numbered(names: Iterable[str]) -> list[str]:
    """Number names that are equal."""
    taken: list[str] = []
    for name in names:
        numbers = (name, *(f"{name} ({n})" for n in range(2, len(taken) + 3)))
        taken.append(next(numbered for numbered in numbers if numbered not in taken))
    return taken
