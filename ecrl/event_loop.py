"""An event loop in a thread of its own: what waits for others goes on while the caller computes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSING = 5.0  # seconds in which what was cancelled may end


class EventLoopThread:
    """Runs coroutines; no call has a time limit unless it sets one.

    Args:
        name: of the thread.

    Attributes:
        loop: the thread's event loop.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._releases: list[Callable[[], Awaitable[None]]] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread, and wait for its result; not from the thread itself.

        Raises:
            RuntimeError: this is the thread itself, which would wait for ever.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("the thread of the event loop cannot wait for itself: use await")
        return self.start(work).result()

    def at_close(self, release: Callable[[], Awaitable[None]]) -> None:
        """Have something released in the thread before it ends."""
        self._releases.append(release)

    def close(self) -> None:
        """End what the thread does, and the thread. May be called twice; a blocked thread is left behind."""
        if self.loop.is_closed():
            return
        try:
            with suppress(TimeoutError):
                self.start(self._end()).result(2 * _CLOSING)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_CLOSING)
        if not self._thread.is_alive():
            self.loop.close()

    async def _end(self) -> None:
        await cancel_all(asyncio.all_tasks() - {asyncio.current_task()})
        for release in self._releases:
            await release()
        with suppress(RuntimeError):  # at the interpreter's end no thread can be started
            await asyncio.wait_for(self.loop.shutdown_default_executor(), _CLOSING)


async def cancel_all(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel what has not ended of some tasks, and wait for it; a task that goes on nevertheless is left."""
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=_CLOSING)
        for task in running:
            if task.done() and not task.cancelled():
                task.exception()  # heard, so that asyncio does not print it
