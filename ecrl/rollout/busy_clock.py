"""A clock that runs while something is going on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from ecrl.timeline import add_span


class BusyClock:
    """Counts the seconds in which at least one of several things is going on, in any thread.

    Args:
        track: row of the timeline that shows when it ran.
    """

    def __init__(self, track: str) -> None:
        self._track = track
        self._lock = Lock()
        self._going = 0
        self._since = 0.0
        self._total = 0.0

    def start(self) -> None:
        """One more thing is going on."""
        with self._lock:
            if not self._going:
                self._since = time.perf_counter()
            self._going += 1

    def stop(self) -> None:
        """One thing has ended."""
        with self._lock:
            self._going -= 1
            if not self._going:
                end = time.perf_counter()
                self._total += end - self._since
                add_span("busy", self._since, end, self._track)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run during the block."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def seconds(self) -> float:
        """Return the seconds so far."""
        with self._lock:
            running = time.perf_counter() - self._since if self._going else 0.0
            return self._total + running
