"""What a run says: shown to the user, and kept with the time in the run's ``log.txt``."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ecrl.errors import EcrlError

NAME = "log.txt"


class RunLog:
    """Shows lines and keeps them; those that come before the run has a folder are kept as soon as it has.

    Args:
        show: shows a line to the user.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._path: Path | None = None
        self._early: list[str] = []

    def say(self, line: str) -> None:
        """Show a line and keep it."""
        self._show(line)
        self.note(line)

    def say_timed(self, line: str) -> None:
        """Show a line with the time of day, and keep it."""
        self._show(f"{time.strftime('%H:%M:%S')} {line}")
        self.note(line)

    def note(self, line: str) -> None:
        """Keep a line without showing it."""
        stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n"
        if self._path is None:
            self._early.append(stamped)
            return
        with self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(stamped)

    def open(self, run_dir: Path) -> None:
        """Keep the lines in the run's folder from now on."""
        self._path = run_dir / NAME
        with self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.writelines(self._early)
        self._early.clear()

    @contextmanager
    def closing_words(self) -> Iterator[None]:
        """Note by what the block ends, if it fails; with the traceback where the error is not one of ours."""
        try:
            yield
        except EcrlError as error:
            self._last_words(f"error: {error}")
            raise
        except BaseException as error:
            self._last_words("".join(traceback.format_exception(error)).rstrip())
            raise

    def _last_words(self, line: str) -> None:
        """Note a line if it can be written; the error at hand matters more than one of the disk."""
        try:
            if self._path is not None and self._path.parent.exists():
                self.note(line)
        except OSError:
            pass
