"""A time limit for calls that cannot be interrupted."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def watchdog(seconds: float, what: str) -> Iterator[Callable[[], None]]:
    """End this process with a message if the block does not finish in time.

    A call that hangs inside native code cannot be cancelled or interrupted from another thread. The other
    processes of the run then lose a peer and end with an error.

    Args:
        seconds: the limit.
        what: name of the call, for the message.

    Yields:
        A function that starts the time anew, for a block that makes several calls.
    """
    start = time.monotonic()
    finished = threading.Event()

    def anew() -> None:
        nonlocal start
        start = time.monotonic()

    def watch() -> None:
        while not finished.wait(left := start + seconds - time.monotonic()):
            if left <= 0:
                _end(seconds, what)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield anew
    finally:
        finished.set()


def _end(seconds: float, what: str) -> None:
    print(
        f"ecrl: {what} did not return within {seconds:g} s, so this process ends here. Where it hung:",
        file=sys.stderr,
        flush=True,
    )
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
    os._exit(1)
