"""What the adapters share: importing a target by its name, and reading metrics and chat messages."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from ecrl.errors import UsageError


def load_target(target: str) -> Any:
    """Import ``module:name``.

    Raises:
        UsageError: the module or the name does not exist.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"target={target!r} cannot be imported ({error}); write module:Name.") from None


def numbers(info: Any) -> dict[str, float]:
    """Return the finite numbers of a dictionary, as metrics; empty if ``info`` is no dictionary."""
    if not isinstance(info, dict):
        return {}
    plain = {k: float(v) for k, v in info.items() if isinstance(v, (bool, int, float))}
    return {name: value for name, value in plain.items() if np.isfinite(value)}


def text_of(messages: Any) -> str:
    """Return the text of a prompt or completion, which may be a string or a list of chat messages."""
    if isinstance(messages, str):
        return messages
    return "\n\n".join(str(message["content"]) for message in messages)
