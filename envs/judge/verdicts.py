"""Verdicts on disk, so that a repeated answer costs nothing and earns the same, also in a resumed run."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ecrl.errors import UsageError

T = TypeVar("T")

_BUSY = 60.0  # seconds to wait for another process that writes


class Verdicts:
    """Replies by the hash of what was asked, in a SQLite file that several processes may share.

    Of two replies to one question the first stays, and both who asked get it.

    Args:
        path: the file; it and its folder are made if they do not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "verdicts")  # one at a time
        self._connection: sqlite3.Connection | None = None

    async def get(self, key: str) -> str | None:
        """Return a reply; None if there is none.

        Raises:
            UsageError: the file cannot be read.
        """
        return await self._do(lambda: self._read(key))

    async def put(self, key: str, reply: str) -> str:
        """Keep a reply; return the one that counts.

        Raises:
            UsageError: the file cannot be written.
        """

        def write() -> str:
            with self._open() as connection:
                connection.execute("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", (key, reply))
            return self._read(key) or reply

        return await self._do(write)

    async def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()

    def _read(self, key: str) -> str | None:
        row = self._open().execute("SELECT reply FROM verdicts WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, _BUSY, check_same_thread=False)
            with self._connection as connection:
                # Not the write-ahead log: its shared memory does not reach over network file systems.
                connection.execute("CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, reply TEXT)")
        return self._connection

    async def _do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise UsageError(
                f"cache={str(self._path)!r} cannot be used ({error}); give another file, or move it away."
            ) from error
