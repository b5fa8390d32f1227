"""Errors of the operating system (disk, files, memory), each as one line that says what to do."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecrl.errors import UsageError

_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG
#: Only files fail with these. Writing to an open file raises without its name.
_FILES = errno.EIO, errno.EROFS, errno.ESTALE
#: torch has an exception class for a device that is out of memory; for the host it raises RuntimeError.
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
_ASKED = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


def describe(error: Exception) -> str | None:
    """Return one line that says what the system refused and what to do; None for any other error."""
    if isinstance(error, OSError):
        return _of_files(error)
    if isinstance(error, MemoryError):
        return f"Out of memory: {error or 'none is left'}. Choose smaller settings."
    if not _NO_MEMORY.search(str(error)):
        return None
    device = "the GPU" if type(error).__name__ == "OutOfMemoryError" else "this machine"
    asked = _ASKED.search(str(error))
    amount = f" ({asked[1]} more were needed)" if asked else ""
    return (
        f"Out of memory on {device}{amount}. Lower update.max_tokens, the tokens in one forward pass; it may "
        "also change on resume=RUN_DIR. `ecrl plan` says what else helps."
    )


def check_writable(path: Path, what: str) -> None:
    """Refuse before the work what could not be written after it.

    Args:
        path: file or folder to write, which need not exist yet.
        what: the setting that names it.

    Raises:
        UsageError: the folder that it lies in, or would lie in, takes no files.
    """
    try:
        folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{what}={str(path)!r} cannot be written: {error.strerror}.") from None


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Turn a failure to write within the block into a usage error.

    Args:
        path: file or folder that the block writes.
        what: the setting that names it.

    Raises:
        UsageError: a file or folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what}={str(path)!r} cannot be written: {error}.") from None


def _of_files(error: OSError) -> str | None:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return (
            f"The disk is full{place}: {error.strerror}. Free some space; resume=RUN_DIR resumes a run from "
            "its last checkpoint."
        )
    if error.filename:
        return f"{error.filename}: {error.strerror}."
    return f"A file could not be read or written: {error.strerror}." if error.errno in _FILES else None
