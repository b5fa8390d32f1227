"""Turns the errors of Hydra, OmegaConf and YAML into one line that says what to write instead."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from hydra.errors import OverrideParseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ecrl.config.groups import GROUPS, options
from ecrl.config.keys import unknown_key
from ecrl.config.schema import EvalSet
from ecrl.errors import UsageError, unknown_name

#: What a key takes, by how OmegaConf says that a value is something else.
_WANTED = (
    (r"converted to Integer", "a whole number"),
    (r"converted to Float", "a number"),
    (r"not a valid bool", "true or false"),
    (r"Cannot convert '\w+' to string", "text"),
    (r"Union\[int, str\]", "a whole number or a word"),
    (r"is not Optional", "a value; leave the key out for its default"),
    (r"Cannot assign|Invalid type assigned|Cannot merge", "names and values, one by one: KEY.NAME=VALUE"),
)


def explain(error: Exception, config_dir: Path | None) -> UsageError:
    """Return the one-line error for what Hydra raised while composing."""
    if isinstance(error, OverrideParseException):
        return unreadable(error)
    text = str(error)
    cause = f": {first_line(error.__cause__)}" if isinstance(error.__cause__, Exception) else ""
    if override := re.match(r"Error merging override \+*([\w.]+)=(.*)", first_line(error)):
        for pattern, wanted in _WANTED:
            if re.search(pattern, cause):
                key, value = _innermost(override[1], override[2], str(error.__cause__))
                return UsageError(f"{key} takes {wanted.replace('KEY', key)}; got {value}.")
    missing = re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]+)'", text)
    if missing and (group_of := missing[1].replace("/", ".")) in GROUPS:
        return unknown_name(group_of, missing[2], options(group_of, config_dir))
    group = re.search(r"Could not override '(\w+)'", text) or re.search(r"Key '(\w+)' (?:is )?not in", text)
    full = re.search(r"full_key: ([\w.]+)", text) or re.search(r"Could not override '([\w.]+)'", text)
    if full and ("not in" in text or "Could not override" in text):
        return unknown_key(full[1])
    if group:
        return unknown_key(group[1])
    if unknown := re.search(r"Key '(\w+)' not in 'EvalSet'", str(error.__cause__)):
        return unknown_name("key of a validation set", unknown[1], [f.name for f in fields(EvalSet)])
    if isinstance(error, YAMLError) or first_line(error).endswith(":"):  # the lines after the first say where
        return UsageError(" ".join(str(error).split()))
    return UsageError(first_line(error) + cause)


def _innermost(key: str, value: str, cause: str) -> tuple[str, str]:
    """Return the key and the value of ``{name: {name: value}}``, as which keys of a set reach Hydra.

    Where a set has more than one key, OmegaConf's message says which is meant.
    """
    full, wrong = re.search(r"full_key: ([\w.-]+)", cause), re.search(r"Value '(.*?)'", cause)
    if full and wrong and full[1].startswith(f"{key}."):
        return full[1], wrong[1]
    while inner := re.fullmatch(r"\{([\w-]+): ([^,]*)\}", value):
        key, value = f"{key}.{inner[1]}", inner[2]
    return key, value


def unreadable(error: OverrideParseException) -> UsageError:
    """Return the error for a value that Hydra's grammar cannot read; it shows how to quote the value."""
    key, _, value = error.override.lstrip("+").partition("=")
    listed = value.startswith("[") and value.endswith("]")
    parts = value[1:-1].split(",") if listed else [value]
    quoted = ",".join("'" + part.replace("'", r"\'") + "'" for part in parts)
    shown = f"[{quoted}]" if listed else quoted
    return UsageError(
        f'{key}={value} cannot be read. Quote the value, and all of it for the shell: "{key}={shown}"'
    )


def last_cause(error: BaseException) -> str:
    """Return the error at the end of the chain, e.g. the import that failed inside the named module."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
        line += f". If it is a package, install it: pip install {error.name}."
    return line


def first_line(error: Exception) -> str:
    """Return the first line of a message; the error's class if there is no message."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
