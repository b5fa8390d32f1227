"""The config groups, and the names in each."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

#: Groups of which a run takes a list, applied in order: ``strategy=[clip_cov,clip_higher]``.
LISTED = ("strategy", "monitor")
GROUPS = ("model", "env", "engine", "objective", "update.optimizer", *LISTED, "trainer", "experiment")
#: Nodes whose keys are those of a constructor, not of the schema.
OPEN_NODES = ("objective", "engine", "update.optimizer", *LISTED)


def options(group: str, config_dir: Path | None = None) -> list[str]:
    """Return the names available in a config group, those of the user's own folder included."""
    below = group.replace(".", "/")
    folders = [Path(str(resources.files("ecrl.configs"))) / below]
    folders += [config_dir / below] if config_dir else []
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})
