"""Limits that stand beside a field: ``prompts: int = count(64, least=1, most=2**20)``.

A field carries its limit as dataclass metadata, and ``check_limits`` walks the fields. The run's
configuration and the settings of each command both use it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from math import isfinite
from typing import Any, Protocol

from ecrl.errors import UsageError, did_you_mean

LARGEST = 2**31 - 1  # a larger count is a typing mistake, and overflows in the libraries
LIMIT = "limit"  # key of a field's metadata


class Limit(Protocol):
    """What the value of a field must satisfy."""

    @property
    def takes(self) -> str:
        """What it takes, for messages and for docs/configuration.md."""
        ...

    def broken_by(self, value: Any) -> str | None:
        """Say what is wrong with a value, as the end of a sentence that its name begins; None if nothing."""
        ...


@dataclass(frozen=True)
class Range:
    """A finite number within bounds.

    Attributes:
        least: smallest value allowed.
        above: bound that the value must exceed.
        most: largest value allowed.
        wanted: what the message asks for; "" names the bound that the value breaks.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    wanted: str = ""

    @property
    def takes(self) -> str:
        """See ``Limit.takes``."""
        bounds = {"at least": self.least, "above": self.above, "at most": self.most}
        given = [f"{word} {bound}" for word, bound in bounds.items() if bound not in (None, LARGEST)]
        return self.wanted or ", ".join(given)

    def broken_by(self, value: float) -> str | None:
        """See ``Limit.broken_by``."""
        if not isfinite(value):
            return f"must be a finite number, got {value}."
        if self.least is not None and value < self.least:
            broken = f"at least {self.least}"
        elif self.above is not None and value <= self.above:
            broken = f"above {self.above}"
        elif self.most is not None and value > self.most:
            broken = f"at most {self.most}"
        else:
            return None
        return f"must be {self.wanted or broken}, got {value}."


@dataclass(frozen=True)
class Choice:
    """One of a few words; a boolean is a word too."""

    known: tuple[str | bool, ...]

    @property
    def takes(self) -> str:
        """See ``Limit.takes``."""
        return f"one of {', '.join(map(_word, self.known))}"

    def broken_by(self, value: str | bool) -> str | None:
        """See ``Limit.broken_by``."""
        if value in self.known:
            return None
        got = _word(value)
        return f"takes {self.takes}; got {got!r}.{did_you_mean(got, list(map(_word, self.known)))}"


@dataclass(frozen=True)
class NotEmpty:
    """Text or a list that must hold something; ``advice`` ends the message."""

    advice: str
    takes = "not empty"

    def broken_by(self, value: Collection[Any]) -> str | None:
        """See ``Limit.broken_by``."""
        return None if value else f"is empty; {self.advice}."


@dataclass(frozen=True)
class CountOrAll:
    """A whole number of things, at least 1, or the word ``all``."""

    takes = "a number of at least 1, or all"

    def broken_by(self, value: int | str) -> str | None:
        """See ``Limit.broken_by``."""
        if value == "all" or (
            isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST
        ):
            return None
        return f"takes {self.takes}; got {value!r}."


@dataclass(frozen=True)
class WhichCheckpoint:
    """``last``, ``best``, or the number of an iteration."""

    takes = "last, best or an iteration"

    def broken_by(self, value: str) -> str | None:
        """See ``Limit.broken_by``."""
        if value in ("last", "best") or value.isdecimal():
            return None
        return f"takes {self.takes}; got {value!r}.{did_you_mean(value, ('last', 'best'))}"


@dataclass(frozen=True)
class ValidationMetric:
    """The name of a metric of the validation."""

    takes = "a metric of the validation, val/…"

    def broken_by(self, value: str) -> str | None:
        """See ``Limit.broken_by``."""
        return None if value.startswith("val/") else f"takes {self.takes}; got {value!r}."


def number(
    default: float | tuple[float, ...] | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    wanted: str = "",
) -> Any:
    """Make a field for a number; for the bounds see ``Range``."""
    return field(default=default, metadata={LIMIT: Range(least, above, most, wanted)})


def count(default: int | None, *, least: int, most: int = LARGEST) -> Any:
    """Make a field for a whole number of things."""
    return number(default, least=least, most=most)


def choice(default: str | bool | None, known: Collection[str | bool]) -> Any:
    """Make a field for one of a few words."""
    return field(default=default, metadata={LIMIT: Choice(tuple(known))})


def check_limits(node: Any) -> None:
    """Check every field of a dataclass, and of those in it, against the limit that stands beside it.

    Raises:
        UsageError: says which key, what it got and what it takes.
    """
    for key, value, limit in leaves(node):
        if value is None:  # not given
            continue
        if limit is None and isinstance(value, float):
            limit = Range()
        # The limit of a tuple is that of its items.
        for item in value if isinstance(value, tuple) else (value,):
            if limit is not None and (broken := limit.broken_by(item)):
                raise UsageError(f"{key} {broken}")


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Limit | None]]:
    """Yield the settings in nested dataclasses and mappings: dotted key, value, and limit if there is one."""
    for name, value, limit in _children(node):
        if is_dataclass(value) or isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, limit


def _word(value: str | bool) -> str:
    """Write a value as YAML does."""
    return str(value).lower() if isinstance(value, bool) else value


def field_key(of: Field[Any]) -> str:
    """Return the key by which a field is set: its name, with a dot for ``__``."""
    return of.name.replace("__", ".")


def _children(node: Any) -> Iterator[tuple[str, Any, Limit | None]]:
    if isinstance(node, Mapping):
        yield from ((key, value, None) for key, value in node.items())
    else:
        yield from ((field_key(f), getattr(node, f.name), f.metadata.get(LIMIT)) for f in fields(node))
