"""What adapters share: a target by name, and randomness that stays where it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from ecrl.errors import UsageError


def load_target(target: str) -> Any:
    """Import ``module:name``.

    Raises:
        UsageError: there is no such module or name.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"target={target!r} cannot be imported ({error}); write module:Name.") from None


@contextmanager
def randomness(seed: int) -> Iterator[None]:
    """Seed the global generators, which others draw from, and give them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def numbers(info: Any) -> dict[str, float]:
    """The finite numbers of a mapping, as metrics."""
    if not isinstance(info, dict):
        return {}
    plain = {k: float(v) for k, v in info.items() if isinstance(v, (bool, int, float))}
    return {name: value for name, value in plain.items() if np.isfinite(value)}


def text_of(messages: Any) -> str:
    """The text of a prompt, which may be a text or a list of chat messages."""
    if isinstance(messages, str):
        return messages
    return "\n\n".join(str(message["content"]) for message in messages)
