"""Rollouts in the order that training wants them, drawn up to K iterations ahead."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ecrl.engines.base import Completion
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.trajectory import Trajectory, Turn


@dataclass(frozen=True)
class Rollout:
    """What one iteration trains on.

    Attributes:
        iteration: the iteration it is meant for.
        version: of the weights that drew it.
        temperature: of the softmax that it was drawn with.
        drawn: all trajectories.
        kept: indices of those that train, after filters and resampling.
        seconds: what drawing took, by part.
    """

    iteration: int
    version: int
    temperature: float
    drawn: list[Trajectory]
    kept: list[int]
    seconds: dict[str, float] = field(default_factory=dict)


class RolloutQueue:
    """Hands out rollout i, drawn by the weights of iteration max(i − K, 0).

    An engine with devices of its own draws in a thread while the trainer updates; any other draws at
    once. Either way the same weights draw the same rollouts, so the schedule of a run never depends on
    how fast anything is.

    Args:
        draw: draws the rollout of an iteration with weights of a version at a temperature.
        staleness: K, iterations.
        disaggregated: draw in a thread.
    """

    def __init__(
        self, draw: Callable[[int, int, float, MetricsRecorder], Rollout], staleness: int, disaggregated: bool
    ) -> None:
        self._draw = draw
        self._staleness = staleness
        self._thread = ThreadPoolExecutor(1, "rollouts") if disaggregated and staleness else None
        self._pending: list[Future[Rollout]] = []

    def settle(self) -> None:
        """Wait for what is being drawn: the weights may change only after that."""
        for future in self._pending:
            future.result()

    def next(self, iteration: int, version: int, temperature: float) -> Rollout:
        """Start what the present weights are to draw, and return what ``iteration`` trains on."""
        first = iteration + len(self._pending)
        for ahead in range(first, iteration + self._staleness + 1):
            self._pending.append(self._start(ahead, version, temperature))
        return self._pending.pop(0).result()

    def _start(self, iteration: int, version: int, temperature: float) -> Future[Rollout]:
        if self._thread is not None:
            return self._thread.submit(self._draw, iteration, version, temperature, MetricsRecorder())
        future: Future[Rollout] = Future()
        future.set_result(self._draw(iteration, version, temperature, MetricsRecorder()))
        return future

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the rollouts drawn but not yet trained on, as plain data."""
        return [asdict(future.result()) for future in self._pending]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Go on with the rollouts of a checkpoint."""
        self._pending = []
        for plain in state:
            future: Future[Rollout] = Future()
            future.set_result(_rollout(plain))
            self._pending.append(future)

    def close(self) -> None:
        """Forget what is not yet drawn, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)


def _rollout(plain: dict[str, Any]) -> Rollout:
    return Rollout(**{**plain, "drawn": [_trajectory(t) for t in plain["drawn"]]})


def _trajectory(plain: dict[str, Any]) -> Trajectory:
    turns = [Turn(t["context_ids"], Completion(**t["completion"])) for t in plain["turns"]]
    return Trajectory(**{**plain, "turns": turns})
