"""The user's cache: folders that are made once and then shared by runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$ECRL_CACHE`` or ``~/.cache/ecrl``."""
    return Path(os.environ.get("ECRL_CACHE") or Path.home() / ".cache" / "ecrl")


def make_whole(target: Path, make: Callable[[Path], None]) -> None:
    """Make a folder aside, then move it into place, so that no process finds a part of it.

    Args:
        target: where it belongs; one that another process put there meanwhile stays.
        make: writes the folder it is given, which does not exist yet.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as aside:
        made = Path(aside) / target.name
        make(made)
        try:
            os.rename(made, target)
        except OSError:
            if not target.exists():
                raise
