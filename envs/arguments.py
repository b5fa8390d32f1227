"""Checks the arguments that a user gives an environment. Each refusal is one line that names the argument."""

from __future__ import annotations

import inspect
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
    """Check arguments against their annotations.

    Args:
        function: takes the arguments, e.g. ``MathEnv.__init__``.
        values: the arguments by name, e.g. ``locals()``; names that ``function`` does not take are ignored.

    Raises:
        UsageError: an argument has the wrong type; names it, the type wanted and the value got.
    """
    for name, wanted in get_type_hints(function).items():
        if name in values and not _fits(values[name], wanted):
            raise UsageError(f"{name} must be {_type_in_words(wanted)}; got {_shown(values[name])}.")


def check_integer(name: str, value: object, low: int, high: int) -> None:
    """Check that an argument is an integer in ``[low, high]``.

    Raises:
        UsageError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be an integer from {low} to {high}; got {value!r}.")


def check_seconds(name: str, value: object) -> None:
    """Check that a time limit is a number of seconds above 0 and at most 3600.

    Raises:
        UsageError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 3600:
        raise UsageError(f"{name} must be seconds above 0, at most 3600; got {value!r}.")


def check_operators(value: object, allowed: str) -> None:
    """Check that operators are a non-empty string of different characters out of ``allowed``.

    Raises:
        UsageError: they are not.
    """
    if not isinstance(value, str) or not value or len(set(value)) < len(value) or set(value) - set(allowed):
        raise UsageError(f"operators must be some of {allowed!r}, each once; got {value!r}.")


def keyword_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Return the keyword arguments of a class, in order: its own first, then those of its bases.

    A constructor that takes ``**kwargs`` hands them to its base, so the base's arguments count as well.
    """
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        parameters = list(inspect.signature(constructor).parameters.values())[1:]  # without self
        named = (p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD))
        found |= {p.name: p for p in named if p.name not in found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


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
    if wanted in (int, float):  # to Python a bool is an int; to a user it is not, and an int is a number
        return isinstance(value, (int, wanted)) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _type_in_words(wanted: Any) -> str:
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return " or ".join(map(_type_in_words, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is Sequence:
        return f"a list, each item {_type_in_words(inner[0])}"
    if origin in (Mapping, dict):
        return "a mapping by names"
    return _WORDS.get(wanted, str(wanted))


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value!r:.80}"
