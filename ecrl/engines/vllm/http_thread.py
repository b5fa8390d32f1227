"""A thread that holds all connections to the servers, so that they go on while the trainer computes."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx

from ecrl.engines.vllm.shared_secret import bearer

T = TypeVar("T")

_SPARE = 256  # file descriptors for everything but requests


class HTTPThread:
    """Runs coroutines; no call has a time limit unless it sets one.

    Args:
        token: the secret that every request presents.

    Attributes:
        client: the HTTP client of all requests. It follows no redirects and uses no proxy.
        loop: the thread's event loop.
    """

    def __init__(self, token: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = httpx.AsyncClient(
            headers={"Authorization": bearer(token)},
            timeout=None,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )
        self._thread = threading.Thread(target=self.loop.run_forever, name="vllm-servers", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread, and wait for its result."""
        return self.start(work).result()

    def close(self) -> None:
        """End the thread and what it does."""
        if not self.loop.is_closed():
            self.run(self._end())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.client.aclose()


def most_connections() -> int:
    """Return how many connections this process can open, after raising its limit of files if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 16)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some systems state a limit that they do not grant
            hard = soft
    return max(hard - _SPARE, 1)
