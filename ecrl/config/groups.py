"""The config groups, and the names in each."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from omegaconf import OmegaConf

#: Groups of which a run takes a list, applied in order: ``strategy=[clip_cov,clip_higher]``.
LISTED = ("strategy", "monitor")
GROUPS = ("model", "env", "engine", "objective", *LISTED, "trainer", "experiment")
#: Nodes whose keys are those of a constructor, not of the schema.
OPEN_NODES = ("objective", "engine", *LISTED)


def options(group: str, config_dir: Path | None = None) -> list[str]:
    """Return the names available in a config group, those of the user's own folder included."""
    folders = [Path(str(resources.files("ecrl.configs"))) / group]
    folders += [config_dir / group] if config_dir else []
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})


def filled_key(group: str, name: str) -> str | None:
    """Return the key of a listed group that a shipped preset of another name fills; None if there is none."""
    path = Path(str(resources.files("ecrl.configs"))) / group / f"{name}.yaml"
    keys = [str(key) for key in OmegaConf.load(path)] if path.exists() else []
    return keys[0] if len(keys) == 1 and keys != [name] else None
