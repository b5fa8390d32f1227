"""For which share of an iteration the engine, or the trainer, had nothing to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from ecrl.rollout.busy_clock import BusyClock


class IdleTime:
    """Measures idle time between two calls of ``shares``; validation is left out.

    Args:
        engine: runs while the engine has something to do.

    Attributes:
        waiting: to run while the trainer waits for completions or their verification.
    """

    def __init__(self, engine: BusyClock) -> None:
        self._engine = engine
        self.waiting = BusyClock("trainer waits")
        self._since = self._now()

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Leave out the time of the block."""
        before = self._now()
        yield
        self._since += self._now() - before

    def shares(self) -> dict[str, float]:
        """Return ``time/engine_idle`` and ``time/trainer_idle``, in [0, 1], and begin anew."""
        now = self._now()
        wall, busy, waited = now - self._since
        self._since = now
        shares = {"time/engine_idle": 1 - busy / wall, "time/trainer_idle": waited / wall}
        return {name: float(np.clip(share, 0, 1)) for name, share in shares.items()}

    def _now(self) -> NDArray[np.float64]:
        """Seconds: of the wall clock, of a busy engine, of a waiting trainer."""
        return np.array([time.perf_counter(), self._engine.seconds(), self.waiting.seconds()])
