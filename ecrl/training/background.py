"""Work that the training loop does not wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Calls functions in a thread of its own, one after the other.

    An error is raised by a later ``submit``, or by ``wait`` or ``close``.

    Args:
        most: calls that may be pending; with more, ``submit`` waits.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pending: deque[Future[Any]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background")

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function later."""
        while self._pending and (len(self._pending) >= self._most or self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(function, *arguments))

    def wait(self) -> None:
        """Wait until every call has returned."""
        while self._pending:
            self._pending.popleft().result()

    def close(self, raises: bool = True) -> None:
        """Wait until every call has returned, and end the thread; whether their errors count."""
        try:
            if raises:
                self.wait()
        finally:
            self._thread.shutdown()
