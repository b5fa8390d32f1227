"""The config groups, and the names in each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ecrl.errors import unknown_name

#: Groups of which a run takes a list, applied in order: ``strategy=[clip_cov,clip_higher]``.
LISTED = ("strategy", "monitor", "logger")
GROUPS = (
    "model", "model_defaults", "env", "engine", "objective", "update.optimizer", *LISTED, "eval", "trainer",
    "experiment",
)  # fmt: skip
#: Nodes whose keys are those of a constructor, not of the schema.
OPEN_NODES = ("objective", "engine", "update.optimizer", *LISTED)


def options(group: str, config_dir: Path | None = None) -> list[str]:
    """Return the names available in a config group, those of the user's own folder included."""
    below = group.replace(".", "/")
    folders = [Path(str(resources.files("ecrl.configs"))) / below]
    folders += [config_dir / below] if config_dir else []
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})


def presets(choices: Mapping[str, tuple[str, str]], config_dir: Path | None = None) -> DictConfig:
    """Read presets alone, all in one composition.

    Args:
        choices: by the key that a preset shall get: its group and its name.
        config_dir: a folder of the user's own config groups.

    Raises:
        UsageError: a group has no such name.
    """
    for group, name in choices.values():
        if name not in options(group, config_dir):
            raise unknown_name(group, name, options(group, config_dir))
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    overrides = [f"+{group}@{key}={name}" for key, (group, name) in choices.items()]
    GlobalHydra.instance().clear()
    with initialize_config_module("ecrl.configs", version_base="1.3"):
        return compose(overrides=[*overrides, *search])


def filled_key(group: str, name: str) -> str | None:
    """Return the key of a listed group that a shipped preset of another name fills; None if there is none."""
    path = Path(str(resources.files("ecrl.configs"))) / group / f"{name}.yaml"
    keys = [str(key) for key in OmegaConf.load(path)] if path.exists() else []
    return keys[0] if len(keys) == 1 and keys != [name] else None


@cache
def shipped(group: str) -> dict[str, Any]:
    """Return the shipped presets of a group, by name, each as plain values."""
    folder = Path(str(resources.files("ecrl.configs"))) / group
    return {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in sorted(folder.glob("*.yaml"))}
