"""What our loggers have beside Lightning's: texts, figures, histograms, an end, an id to go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IDS = "loggers.json"


class RunLogger:
    """Mixin of a Lightning logger that knows the run's folder.

    Its constructor opens it. It takes the user's settings, and two arguments from the run: ``run_dir``, its
    folder, and ``done``, the number of iterations that are logged already. What a service has no place for is
    left out.

    Attributes:
        package: what must be installed.
    """

    package: ClassVar[str | None] = None

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse settings that cannot work here, before anything is opened.

        Args:
            settings: the user's.

        Raises:
            UsageError: says what works.
        """

    def add_text(self, name: str, markdown: str, iteration: int) -> None:
        """Log a Markdown text."""

    def add_figure(self, name: str, figure: Figure, iteration: int) -> None:
        """Log a figure."""

    def add_histogram(self, name: str, values: Tensor, iteration: int) -> None:
        """Log the distribution of values ``[N]``."""

    def end(self, failed: bool) -> None:
        """Close it for good, unlike Lightning's ``finalize``, after which a run may go on."""


def known_id(run_dir: Path, service: str) -> str | None:
    """Return the id that a run has in a service; None if it has none yet."""
    return _ids(run_dir).get(service)


def keep_id(run_dir: Path, service: str, name: str) -> None:
    """Keep the id that a run has in a service, for when it is resumed."""
    (run_dir / _IDS).write_text(json.dumps(_ids(run_dir) | {service: name}) + "\n")


def _ids(run_dir: Path) -> dict[str, str]:
    path = run_dir / _IDS
    return dict(json.loads(path.read_text())) if path.exists() else {}
