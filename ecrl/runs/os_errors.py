"""What the machine itself denies a run (disk, files, memory), in words."""

from __future__ import annotations

import errno
import re
import tempfile
from pathlib import Path

from ecrl.errors import UsageError

_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
#: Only files fail so; writing to an open one raises without its name.
_FILES = errno.EIO, errno.EROFS, errno.ESTALE
#: torch says so of a device by a class of its own, of the host by a plain RuntimeError.
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


def describe(error: Exception) -> str | None:
    """Say in a line what the machine did not give and what to do; None for any other error."""
    if isinstance(error, OSError):
        return _of_files(error)
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


def check_writable(path: Path, what: str) -> None:
    """Refuse now what could not be written after the work.

    Args:
        path: file or folder to write, which need not exist yet.
        what: the setting that names it.

    Raises:
        UsageError: the folder that it lies in, or would be made in, takes no files.
    """
    try:
        folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{what}={str(path)!r} cannot be written: {error.strerror}.") from None


def _of_files(error: OSError) -> str | None:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return (
            f"The disk is full{place}: {error.strerror}. Make room; a run goes on from its last checkpoint "
            "with resume=RUN_DIR."
        )
    if error.filename:
        return f"{error.filename}: {error.strerror}."
    return f"A file could not be read or written: {error.strerror}." if error.errno in _FILES else None
