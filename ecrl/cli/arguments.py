"""Parses the words of every command.

A command declares a ``Command``: whether it takes plain words (paths, names), the dataclass of its
``key=value`` settings, whether other ``key=value`` words are Hydra overrides, its flags, and its help.
Types and defaults of the settings are those of the dataclass; limits stand beside its fields.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from ecrl.config.limits import check_limits, field_key
from ecrl.errors import UsageError, unknown_name

S = TypeVar("S")

FLAGS = {
    "-m": "run every combination of comma-separated values",
    "--cfg": "print what would run and stop",
    "--config-dir": "DIR, a folder with config groups of your own",
    "--push": "USER/NAME, upload to the Hugging Face hub",
}
_VALUES = {"--config-dir": "a folder: --config-dir DIR", "--push": "a name: --push USER/NAME"}
_ALIASES = {"--multirun": "-m"}
#: How a setting of each type is called and read.
_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", int),
    float: ("a number", float),
    str: ("text", str),
    Path: ("a path", lambda text: Path(text).expanduser()),
    tuple[float, ...]: ("numbers with commas between them", lambda text: tuple(map(float, text.split(",")))),
}


@dataclass(frozen=True)
class NoSettings:
    """The settings of a command that has none."""


@dataclass(frozen=True)
class Arguments(Generic[S]):
    """What a command was given.

    Attributes:
        words: plain words, in order.
        settings: the command's own settings.
        overrides: Hydra overrides.
        config_dir: a folder of the user's own config groups.
        sweep: whether to run every combination of comma-separated values.
        show: whether to print what would run and stop.
        push: name on the Hugging Face hub to upload to.
    """

    words: list[str]
    settings: S
    overrides: list[str]
    config_dir: Path | None = None
    sweep: bool = False
    show: bool = False
    push: str | None = None


@dataclass(frozen=True)
class Command(Generic[S]):
    """What a command takes.

    Attributes:
        name: as it is called.
        help: its own help; a line for each flag is added.
        settings: dataclass of its ``key=value`` words.
        words: whether it takes plain words.
        overrides: whether other ``key=value`` words are Hydra overrides.
        flags: those of ``FLAGS`` that it takes.
    """

    name: str
    help: str
    settings: type[S]
    words: bool = False
    overrides: bool = False
    flags: tuple[str, ...] = ()

    def help_text(self) -> str:
        """Return the help with the flags."""
        lines = [f"  {flag:13} {FLAGS[flag]}" for flag in self.flags]
        return "\n".join([self.help.rstrip(), *(["", *lines] if lines else [])])

    def parse(self, line: Sequence[str]) -> Arguments[S]:
        """Sort the words of a command line.

        Raises:
            UsageError: an unknown key or flag, a key that is given twice, a value of the wrong kind or beyond
                its limits.
        """
        words: list[str] = []
        overrides: list[str] = []
        given: dict[str, str] = {}
        flags: dict[str, str] = {}
        rest = iter(line)
        for word in rest:
            key, equals, value = word.partition("=")
            if word.startswith("-"):
                flags |= self._flag(word, rest)
            elif self._is_plain(word):
                words.append(os.path.expanduser(word))
            elif key in self._kinds:
                if key in given and not self.overrides:  # among overrides the last one wins, as in Hydra
                    raise UsageError(f"`ecrl {self.name}`: {key} stands twice; drop one.")
                given[key] = value
            elif self.overrides and equals:
                # No shell expands `~` after `=`, and Hydra's grammar has no `~`.
                overrides.append(f"{key}={os.path.expanduser(value)}")
            else:
                raise self._unknown(word)
        return Arguments(
            words,
            self._settings(given),
            overrides,
            config_dir=Path(flags["--config-dir"]).expanduser() if "--config-dir" in flags else None,
            sweep="-m" in flags,
            show="--cfg" in flags,
            push=flags.get("--push"),
        )

    @property
    def _kinds(self) -> dict[str, Any]:
        """The type of each setting, by key."""
        hints = get_type_hints(self.settings)
        return {field_key(f): hints[f.name] for f in fields(self.settings)}  # type: ignore[arg-type]

    def _flag(self, word: str, rest: Iterator[str]) -> dict[str, str]:
        """Return a flag with its value, which may be the next word."""
        flag, equals, value = word.partition("=")
        flag = _ALIASES.get(flag, flag)
        if flag not in self.flags:
            known = (*self.flags, "--help")
            if flag in FLAGS:
                raise UsageError(f"`ecrl {self.name}` has no {flag}; its options: {', '.join(known)}.")
            raise unknown_name("option", flag, known)
        if flag in _VALUES and not equals:
            value = next(rest, "")
        if flag in _VALUES and not value:
            raise UsageError(f"{flag} needs {_VALUES[flag]}.")
        return {flag: value}

    def _is_plain(self, word: str) -> bool:
        """Whether a word is plain; the name of a file may hold ``=``."""
        key, equals, _ = word.partition("=")
        if not self.words or not equals:
            return self.words
        only_words = not self._kinds and not self.overrides
        return only_words or (not self.overrides and ("/" in key or os.path.exists(word)))

    def _settings(self, given: dict[str, str]) -> S:
        values = {key.replace(".", "__"): self._value(key, text) for key, text in given.items()}
        settings = self.settings(**values)
        check_limits(settings)
        return settings

    def _value(self, key: str, text: str) -> Any:
        """Read the value of a setting."""
        kind = self._kinds[key]
        if isinstance(kind, UnionType):
            kind = next(k for k in get_args(kind) if k is not NoneType)
        noun, read = _READERS[kind]
        try:
            if text:
                return read(text)
        except ValueError:
            pass
        raise UsageError(f"`ecrl {self.name}`: {key} takes {noun}, got {text!r}.")

    def _unknown(self, word: str) -> UsageError:
        if self.overrides:
            return UsageError(f"{word!r} is not an override; write key=value, e.g. seed=1.")
        if self._kinds:
            return unknown_name(f"setting of `ecrl {self.name}`", word.partition("=")[0], self._kinds)
        return UsageError(f"`ecrl {self.name}` takes no arguments, got {word!r}.")
