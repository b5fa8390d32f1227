"""Errors that a user can cause or act on. The command line prints each of them as one line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

#: Environment variable: a folder in which the processes of a run note the errors that they have printed.
SAID = "ECRL_SAID"


class EcrlError(Exception):
    """Base class: the message says what was got, what was wanted and what to do.

    Examples:
        >>> import ecrl
        >>> try:
        ...     ecrl.load_config("iterations=0")
        ... except ecrl.EcrlError as error:
        ...     print(error)
        iterations must be at least 1, got 0.
    """

    exit_code = 1
    #: Whether another process of the run prints this error or its cause, so that this one stays silent.
    said_elsewhere = False


class UsageError(EcrlError):
    """Bad input, such as a setting, a path or a name. Nothing was run.

    Examples:
        >>> from ecrl import UsageError
        >>> UsageError("seed must be at least 0, got -1.").exit_code
        2
    """

    exit_code = 2


class LostPeerError(EcrlError):
    """Another process of the run has ended. That process, or the launcher, reports the cause."""

    exit_code = 3


class SilentPeerError(LostPeerError):
    """Another process of the run did not answer in time."""

    exit_code = 4


class NonFiniteError(EcrlError):
    """A loss or gradient became NaN or infinite. The run stopped before the optimizer step."""


def first_to_say(line: str) -> bool:
    """Whether no other process that our launcher started has printed this line; notes that one has."""
    folder = os.environ.get(SAID)
    if folder is None:
        return True
    with suppress(FileExistsError):
        Path(folder, hashlib.sha256(line.encode()).hexdigest()).touch(exist_ok=False)
        return True
    return False


@contextmanager
def usage_errors(prefix: str = "") -> Iterator[None]:
    """Turn a ``ValueError`` of the block into a ``UsageError`` with the same message.

    Pure code raises ``ValueError``; the code that passes it a user's input wraps the call in this.

    Args:
        prefix: goes before the message, e.g. the config group of the argument that the message names.

    Raises:
        UsageError: the block raised a ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{prefix}{error}") from error


def unknown_name(kind: str, got: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name; see :func:`name_message`."""
    return UsageError(name_message(kind, got, known))


def name_message(kind: str, got: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, with the nearest known name and the list of all, or where it is."""
    names = sorted(known)
    hint = did_you_mean(got, names)
    listing = f" Known: {', '.join(names)}." if len(names) <= 30 or not hint else ""
    if kind == "strategy" and not hint:
        listing = " `ecrl strategies` lists them."
    return f"Unknown {kind} {got!r}.{hint}{listing}"


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return " Did you mean …?" with the nearest known name; "" where none is near.

    A name that is less like it counts as near if it begins with the same letter.
    """
    names = list(known)
    alike = [name for name in names if name[:1] == got[:1]]
    near = get_close_matches(got, names, n=1, cutoff=0.75) or get_close_matches(got, alike, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
