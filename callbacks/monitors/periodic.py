"""Monitors that draw or write at some iterations only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class PeriodicMonitor(L.Callback):
    """A monitor with a period.

    Args:
        every: iterations between its tables or figures; None takes ``log.samples_every``.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, *, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ValueError(f"{type(self).__name__}: every must be at least 1 iteration, got {every}.")
        self._every = every

    def is_due(self, module: PolicyModule, iteration: int) -> bool:
        """Whether it is this iteration's turn, counted from 1."""
        return iteration % (self._every or module.config.log.samples_every) == 0
