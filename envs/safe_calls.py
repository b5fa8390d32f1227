"""Where someone else's code begins: what fails there ends in one line that names the place."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym

from ecrl.envs.base import Split
from ecrl.errors import EcrlError, UsageError


@contextmanager
def user_code(name: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever the code within raises into one line.

    Args:
        name: of what is called, such as ``me/MyTask-v0.step``.
        but: what the caller explains better.

    Raises:
        UsageError: it raised one, in a line of its own.
        EcrlError: it raised anything else.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (UsageError, *but)):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        raise EcrlError(f"{name} failed: {said} ({frame.filename}:{frame.lineno}).") from error


def make(name: str, split: Split, kwargs: Mapping[str, Any]) -> gym.Env[str, str]:
    """Make an environment by its id.

    Raises:
        UsageError: an unknown id, or arguments that it does not take.
        EcrlError: its constructor failed otherwise.
    """
    try:
        with user_code(f"Making {name}", but=(gym.error.Error, ModuleNotFoundError, TypeError)):
            return gym.make(name, split=split, disable_env_checker=True, **kwargs)
    except (gym.error.Error, ModuleNotFoundError) as error:
        known = sorted(i for i in gym.registry if i.startswith("ecrl/"))
        raise UsageError(f"Unknown env {name!r} ({error}). Built in: {', '.join(known)}.") from None
    except TypeError as error:
        raise UsageError(f"env {name!r} could not be made with kwargs {dict(kwargs)}: {error}") from None


def env_id(env: gym.Env[str, str]) -> str:
    """The id that an environment was made by, or its class."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def reset(env: gym.Env[str, str], **arguments: Any) -> tuple[str, dict[str, Any]]:
    """Reset an environment.

    Raises:
        UsageError: it says what is wrong with its settings.
        EcrlError: it failed, or gave something else than a prompt and a dictionary.
    """
    with user_code(f"{env_id(env)}.reset"):
        prompt, info = env.reset(**arguments)
        return as_text(prompt, "prompt"), info


def as_text(value: Any, what: str) -> str:
    """Take a text that someone else's code gave.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"the {what} is {value!r:.80}, not a str")
    return value
