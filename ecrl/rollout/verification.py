"""Verifies responses as they arrive: in the event loop where steps are asynchronous, else in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from ecrl.distributed.watchdog import watchdog
from ecrl.envs.async_steps import is_async, is_concurrent, shared_loop
from ecrl.event_loop import cancel_all
from ecrl.rollout.episode import THREADS, Episode
from ecrl.rollout.shared_engine import AbandonedError
from ecrl.timeline import span

_LOOK = 0.2  # seconds between two looks whether the run has ended


class Verification:
    """Gives environments the last responses of their episodes.

    A step that does not return in time ends the process, because nothing can stop it; an asynchronous one is
    stopped, and counts as failed.

    Args:
        step: steps the environment of an episode.
        step_async: does the same where steps are asynchronous; has a time limit of its own.
        timeout: seconds for one step.
        stopping: whether the run has ended elsewhere, so that asynchronous steps need not be awaited.

    Attributes:
        open: number of episodes that were started and not yet taken.
    """

    def __init__(
        self,
        step: Callable[[Episode], None],
        step_async: Callable[[Episode], Awaitable[None]],
        timeout: float,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._step = step
        self._step_async = step_async
        self._timeout = timeout
        self._stopping = stopping
        self._threads = ThreadPoolExecutor(THREADS, "verify")  # it makes them as they are needed
        self._slots: asyncio.Semaphore | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: SimpleQueue[Future[list[Episode]]] = SimpleQueue()
        self.open = 0

    def start(self, episodes: Sequence[Episode]) -> None:
        """Verify the last responses of some episodes, whose environments are of one kind.

        Raises:
            EcrlError: the environment's code failed, and that is to end the run.
        """
        if not episodes:
            return
        self.open += len(episodes)
        env = episodes[0].env
        if is_async(env):
            self._slots = self._slots or asyncio.Semaphore(getattr(env.unwrapped, "in_flight", THREADS))
            for episode in episodes:
                work = self._verify_async(episode, self._slots)
                shared_loop().start(work).add_done_callback(self._ended.put)
        elif is_concurrent(env):
            for i in range(min(len(episodes), THREADS)):
                part = self._threads.submit(self._verify, episodes[i::THREADS])
                part.add_done_callback(self._ended.put)
        else:
            verified: Future[list[Episode]] = Future()
            verified.set_result(self._verify(episodes))
            self._ended.put(verified)

    def take(self, least: int) -> list[Episode]:
        """Return the verified episodes, each once; wait for ``least``.

        Raises:
            AbandonedError: the run has ended elsewhere.
            EcrlError: the environment's code failed, and that is to end the run.
        """
        taken: list[Episode] = []
        while len(taken) < least or not self._ended.empty():
            taken += self._next().result()
        self.open -= len(taken)
        return taken

    def close(self) -> None:
        """End the threads and the asynchronous steps; what has not begun is forgotten."""
        self._threads.shutdown(cancel_futures=True)
        if self._slots is not None:
            shared_loop().run(cancel_all(self._tasks))

    def _next(self) -> Future[list[Episode]]:
        """Wait for what ends next. No step may block the event loop, for then none has its time limit."""
        if not self._ended.empty() or self._slots is None:
            return self._ended.get()
        with watchdog(2 * self._timeout, f"The environment's scoring of {self.open} completions"):
            while not self._stopping():
                with suppress(Empty):
                    return self._ended.get(timeout=_LOOK)
        raise AbandonedError("The run has ended.")

    def _verify(self, episodes: Sequence[Episode]) -> list[Episode]:
        with watchdog(self._timeout, "The environment's scoring of a completion") as anew, span("verify"):
            for episode in episodes:
                anew()
                self._step(episode)
        return list(episodes)

    async def _verify_async(self, episode: Episode, slots: asyncio.Semaphore) -> list[Episode]:
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        async with slots:
            await self._step_async(episode)
        return [episode]
