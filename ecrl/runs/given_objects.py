"""The strategies that a run got as objects from Python, which its configuration cannot name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ecrl.config.schema import Config
from ecrl.errors import UsageError

_NAME = "given_strategies.json"


def keep_given(run_dir: Path, strategies: Sequence[object]) -> None:
    """Keep the names of their classes, if there are any."""
    if strategies:
        (run_dir / _NAME).write_text(json.dumps(_classes(strategies)) + "\n")


def check_given(config: Config, strategies: Sequence[object]) -> None:
    """Refuse to resume a run with other objects than it began with.

    Raises:
        UsageError: says which classes it had.
    """
    if config.resume is None:
        return
    path = Path(config.resume) / _NAME
    before = json.loads(path.read_text()) if path.exists() else []
    if before != _classes(strategies):
        raise UsageError(
            f"resume={config.resume}: the run got its strategies {before} from Python, not "
            f"{_classes(strategies)}; resume it with the same: ecrl.train('resume=…', strategies=[…])."
        )


def _classes(strategies: Sequence[object]) -> list[str]:
    return [f"{type(strategy).__module__}.{type(strategy).__qualname__}" for strategy in strategies]
