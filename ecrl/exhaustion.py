"""What a machine without more disk or memory raises, in words."""

from __future__ import annotations

import errno
import re

_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
#: torch says so of a device by a class of its own, of the host by a plain RuntimeError.
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


def exhausted(error: Exception) -> str | None:
    """Say in a line what ran out and what to do; None for any other error."""
    if isinstance(error, OSError):
        if error.errno not in _FULL:
            return None
        place = f" ({error.filename})" if error.filename else ""
        return (
            f"The disk is full{place}: {error.strerror}. Make room; a run goes on from its last checkpoint "
            "with resume=RUN_DIR."
        )
    if isinstance(error, MemoryError):
        return f"Out of memory: {error or 'no more is left'}. Ask for less."
    if not _NO_MEMORY.search(str(error)):
        return None
    device = "the GPU" if type(error).__name__ == "OutOfMemoryError" else "this machine"
    asked = _ASKED.search(str(error))
    amount = f" ({asked[1]} more were asked for)" if asked else ""
    return (
        f"Out of memory on {device}{amount}. Take fewer tokens in a pass: update.max_tokens, which may "
        "change on resume=RUN_DIR too. `ecrl plan` says what else helps."
    )
