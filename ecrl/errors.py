"""The errors a user can cause or can act on. The command line prints them as one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EcrlError(Exception):
    """Base class: the message says what was got, what was wanted and what to do."""

    exit_code = 1
    #: Whether another process of the run says it, or the cause of it, so that it need not be said again.
    said_elsewhere = False


class UsageError(EcrlError):
    """Bad input: a config, a path, a name. Nothing was run."""

    exit_code = 2


class LostPeerError(EcrlError):
    """Another process of the run is gone; why is for that one to say."""

    exit_code = 3


class SilentPeerError(LostPeerError):
    """Another process of the run did not answer in time."""

    exit_code = 4


class NonFiniteError(EcrlError):
    """A loss or gradient became NaN or infinite. The run stopped before the optimizer used it."""


def unknown_name(kind: str, got: str, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name: the nearest known one, and the list of all if it is short."""
    names = sorted(known)
    hint = did_you_mean(got, names)
    listing = f" Known: {', '.join(names)}." if len(names) <= 30 or not hint else ""
    return UsageError(f"Unknown {kind} {got!r}.{hint}{listing}")


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Return " Did you mean …?" with the nearest known name; "" where none is near."""
    near = get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
