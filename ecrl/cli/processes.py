"""Runs a command's work in as many processes as the configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ecrl.config.schema import Config
from ecrl.distributed.launch import end_with_launcher, launch, launched, peers_named, processes


def in_processes(config: Config, words: Sequence[str], work: Callable[[], None]) -> int:
    """Do the work in this process, or start ``ecrl <words>`` in ``trainer.devices`` of them.

    Returns:
        The exit code.
    """
    if processes(config) > 1 and not launched():
        return launch(config, words)
    end_with_launcher()
    with peers_named():
        work()
    return 0
