"""Constructors' arguments held against their annotations: one line in place of what Python says later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ecrl.errors import UsageError

_WORDS: dict[Any, str] = {
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    type(None): "null",
}


def check_types(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Refuse arguments that are not of the types that they are annotated with.

    Args:
        function: whose arguments they are, e.g. ``MathEnv.__init__``.
        values: by name, e.g. ``locals()``; what is no argument of it may be among them.

    Raises:
        UsageError: names the argument, what was wanted and what was got.
    """
    for name, wanted in get_type_hints(function).items():
        if name in values and not _fits(values[name], wanted):
            raise UsageError(f"{name} must be {_spoken(wanted)}; got {_shown(values[name])}.")


def _fits(value: Any, wanted: Any) -> bool:
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    if wanted in (int, float):  # a bool is an integer to Python only, an integer is a number to all
        return isinstance(value, (int, wanted)) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _spoken(wanted: Any) -> str:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return " or ".join(map(_spoken, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is Sequence:
        return f"a list, each item {_spoken(inner[0])}"
    if origin in (Mapping, dict):
        return "a mapping by names"
    return _WORDS.get(wanted, str(wanted))


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value!r:.80}"
