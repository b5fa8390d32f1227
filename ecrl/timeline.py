"""A timeline of a run, as a Chrome trace: what each thread did, and when.

Spans are told from anywhere; they are kept only while a trace is being written. Perfetto (ui.perfetto.dev)
shows it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Bytes that a trace may take; it ends there.
MOST_BYTES = 64 << 20
#: Seconds below which a span is left out.
_SHORTEST = 1e-4
#: Seconds between two spans of one name on a track, up to which they are shown as one.
_GAP = 0.005
#: Seconds between two writes to the file.
_PAUSE = 1.0

_active: Trace | None = None


class Trace:
    """Writes spans to a file. If the disk is full or the file too long, it says so and ends; the run goes on.

    Args:
        path: the file; one that is there is replaced.
        say: shows a line to the user.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._begin = time.perf_counter()
        self._lock = threading.Lock()
        self._last: dict[str, tuple[str, float, float]] = {}  # of each track; the next may be part of it
        self._tracks: dict[str, int] = {}
        self._lines: list[str] = []  # not written yet
        self._written = self._begin
        self._bytes = 0

    def __enter__(self) -> Trace:
        """Take the spans of all threads from now on."""
        global _active
        _active = self
        self._write("[\n", "w")
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is left."""
        with self._lock:
            for track, last in self._last.items():
                self._keep(track, *last)
            if _active is self:
                self._write("".join(self._lines) + "{}]\n")
            self._end()

    def add(self, name: str, start: float, end: float, track: str) -> None:
        """Add a span, with its times by ``time.perf_counter``."""
        with self._lock:
            last = self._last.get(track)
            if last is not None and last[0] == name and start - last[2] < _GAP:
                self._last[track] = (name, min(last[1], start), end)
                return
            self._last[track] = (name, start, end)
            if last is not None:
                self._keep(track, *last)
            if _active is self and end - self._written > _PAUSE:
                self._written, lines, self._lines = end, self._lines, []
                self._write("".join(lines))
                if self._bytes > MOST_BYTES:
                    self._say(
                        f"log.trace: {self._path} is {MOST_BYTES >> 20} MiB long; the timeline ends here."
                    )
                    self._end()

    def _keep(self, track: str, name: str, start: float, end: float) -> None:
        if track not in self._tracks:
            self._tracks[track] = len(self._tracks)
            self._add_event("thread_name", track, ph="M", args={"name": track})
        micro = {"ts": round(1e6 * (start - self._begin)), "dur": round(1e6 * (end - start))}
        self._add_event(name, track, ph="X", **micro)

    def _add_event(self, name: str, track: str, **fields: Any) -> None:
        if self._bytes <= MOST_BYTES:
            event = {"name": name, "pid": 0, "tid": self._tracks[track], **fields}
            self._lines.append(json.dumps(event) + ",\n")
            self._bytes += len(self._lines[-1])

    def _write(self, text: str, mode: str = "a") -> None:
        try:
            with self._path.open(mode) as file:
                file.write(text)
        except OSError as error:
            self._say(
                f"log.trace: {self._path} cannot be written ({error.strerror}); the timeline ends here."
            )
            self._end()

    def _end(self, reason: str = "") -> None:
        global _active
        if reason:
            self._say(f"log.trace: {self._path} {reason}; the timeline ends here.")
        if _active is self:
            _active = None


def add_span(name: str, start: float, end: float, track: str | None = None) -> None:
    """Tell the trace, if there is one, what went on between two times by ``time.perf_counter``.

    Args:
        name: what went on.
        start: when it began.
        end: when it ended.
        track: the row of the timeline; None takes the current thread's.
    """
    trace = _active
    if trace is not None and end - start >= _SHORTEST:
        trace.add(name, start, end, track or threading.current_thread().name)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Tell the trace, if there is one, what the current thread does in the block."""
    start = time.perf_counter()
    try:
        yield
    finally:
        add_span(name, start, time.perf_counter())
