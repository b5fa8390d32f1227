"""A limit in time for calls that cannot be interrupted."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def watchdog(seconds: float, what: str) -> Iterator[None]:
    """End this process, saying why, if the block does not return in time.

    A call that hangs inside native code can be neither cancelled nor raised from another thread. The
    other processes of the run then miss a peer, and end with an error of their own.

    Args:
        seconds: the limit.
        what: the call, for the message.
    """
    timer = threading.Timer(seconds, _end, (seconds, what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(seconds: float, what: str) -> None:
    print(
        f"ecrl: {what} did not return within {seconds:g} s, so this process ends here. Where it hung:",
        file=sys.stderr,
        flush=True,
    )
    faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
    os._exit(1)
