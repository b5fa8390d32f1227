"""Processes that run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def session_processes(session: int) -> list[int]:
    """Ids of the processes of a session that run."""
    running = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended just now
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state != "Z":
                running.append(int(stat.parent.name))
    return running
