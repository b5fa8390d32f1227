"""One engine for several rollouts that are drawn at the same time, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from threading import RLock

from ecrl.engines.base import Completion, Engine, Request
from ecrl.errors import EcrlError


class AbandonedError(EcrlError):
    """A rollout ends because another one has failed, or because the run has."""


class SharedEngine:
    """Gives every rollout the completions of its own requests.

    Args:
        engine: can be paused; only this object draws with it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = RLock()
        self._numbers = count()
        self._askers: dict[int, tuple[EngineLine, int]] = {}  # of each open request, with its own id
        self._failed = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing within the block, in which the weights may change; open requests then go on."""
        with self._lock:
            self._engine.pause()
            yield
            self._engine.resume()

    def submit(self, line: EngineLine, requests: Sequence[Request]) -> None:
        """Ask for completions that go to a line."""
        with self._lock:
            numbered = [(next(self._numbers), request) for request in requests]
            self._engine.submit([Request(n, r.prompt, r.key, r.sampling) for n, r in numbered])
            self._askers |= {number: (line, request.id) for number, request in numbered}

    def poll(self, line: EngineLine) -> None:
        """Let the engine go on, and give each line what finished; not if this line has something already.

        Raises:
            AbandonedError: another line's rollout has failed.
            EcrlError: the engine fails.
        """
        with self._lock:
            if self._failed:
                raise AbandonedError("Another rollout has failed.")
            if line.arrived:
                return
            for number, completion in self._engine.poll():
                asker, own = self._askers.pop(number)
                asker.arrived.append((own, completion))

    def cancel(self) -> None:
        """Forget all requests, of every line."""
        with self._lock:
            self._failed = True
            self._engine.cancel()


class EngineLine:
    """An engine as one rollout sees it.

    Args:
        shared: the engine of all rollouts.

    Attributes:
        arrived: completions that were not polled yet.
    """

    waves = False
    lockstep = False

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self.arrived: list[tuple[int, Completion]] = []

    def submit(self, requests: Sequence[Request]) -> None:
        """See ``Engine.submit``."""
        self._shared.submit(self, requests)

    def poll(self) -> list[tuple[int, Completion]]:
        """See ``Engine.poll``."""
        self._shared.poll(self)
        arrived, self.arrived = self.arrived, []
        return arrived

    def cancel(self) -> None:
        """Forget all requests: a rollout that fails ends the run, and so the other rollouts."""
        self._shared.cancel()
