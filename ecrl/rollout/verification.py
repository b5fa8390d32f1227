"""Verifies responses as they arrive: in threads where environments wait for other processes, else at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from ecrl.distributed.watchdog import watchdog
from ecrl.rollout.episode import THREADS, Episode, is_concurrent
from ecrl.timeline import span


class Verification:
    """Gives environments the last responses of their episodes.

    A step that does not return in time ends the process, because nothing can stop it.

    Args:
        step: steps the environment of an episode.
        timeout: seconds for one step in a thread, or for all of a call of ``start`` that are in none.

    Attributes:
        open: number of episodes that were started and not yet taken.
    """

    def __init__(self, step: Callable[[Episode], None], timeout: float) -> None:
        self._step = step
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(THREADS, "verify")  # it makes them as they are needed
        self._ended: SimpleQueue[Future[list[Episode]]] = SimpleQueue()
        self.open = 0

    def start(self, episodes: Sequence[Episode]) -> None:
        """Verify the last responses of some episodes.

        Raises:
            EcrlError: the environment's code failed, and that is to end the run.
        """
        self.open += len(episodes)
        at_once = []
        for episode in episodes:
            if is_concurrent(episode):
                self._threads.submit(self._verify, [episode]).add_done_callback(self._ended.put)
            else:
                at_once.append(episode)
        if at_once:
            verified: Future[list[Episode]] = Future()
            verified.set_result(self._verify(at_once))
            self._ended.put(verified)

    def take(self, least: int) -> list[Episode]:
        """Return the verified episodes, each once; wait for ``least``.

        Raises:
            EcrlError: the environment's code failed, and that is to end the run.
        """
        taken: list[Episode] = []
        while len(taken) < least or not self._ended.empty():
            taken += self._ended.get().result()
        self.open -= len(taken)
        return taken

    def close(self) -> None:
        """End the threads; what has not begun is forgotten."""
        self._threads.shutdown(cancel_futures=True)

    def _verify(self, episodes: list[Episode]) -> list[Episode]:
        of = f"of {len(episodes)} completions" if len(episodes) > 1 else "of a completion"
        with watchdog(self._timeout, f"The environment's scoring {of}"), span("verify"):
            for episode in episodes:
                self._step(episode)
        return episodes
