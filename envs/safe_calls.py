"""Calls code that is not ours: users' environments, and other packages' generators.

What fails there ends in one line that names the place, and random numbers drawn there leave ours alone.
"""

from __future__ import annotations

import random
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np

from ecrl.envs.arguments import keyword_arguments
from ecrl.envs.async_steps import is_async
from ecrl.envs.base import Split
from ecrl.errors import EcrlError, UsageError, unknown_name

_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")


@contextmanager
def user_code(name: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Run the user's code; an exception becomes a one-line error that names that code, the file and the line.

    Args:
        name: what the user's code is called in the error, such as ``me/MyTask-v0.step``.
        but: exceptions to let through, because the caller explains them better.

    Raises:
        UsageError: the code raised one; it passes unchanged.
        EcrlError: the code raised anything else.
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
        UsageError: the id is unknown, or the environment does not take these arguments.
        EcrlError: its constructor failed otherwise.
    """
    try:
        with user_code(f"Making {name}", but=(gym.error.Error, ModuleNotFoundError, TypeError)):
            env = gym.make(name, split=split, disable_env_checker=True, **kwargs)
    except (gym.error.Error, ModuleNotFoundError) as error:
        known = sorted(i for i in gym.registry if i.startswith("ecrl/"))
        raise UsageError(f"Unknown env {name!r} ({error}). Built in: {', '.join(known)}.") from None
    except TypeError as error:
        raise UsageError(f"env {name!r} could not be made: {_why_not(name, kwargs, error)}") from None
    if is_async(env) and env.spec and env.spec.max_episode_steps:
        raise UsageError(
            f"{name} has asynchronous steps, which Gymnasium's TimeLimit cannot count: register it without "
            "max_episode_steps, and let its step return truncated=True."
        )
    return env


def _why_not(name: str, kwargs: Mapping[str, Any], error: TypeError) -> str:
    """Explain a constructor's TypeError; for an unknown argument, name the nearest known one."""
    cause = str(error.__cause__ or error)  # Gymnasium repeats all arguments behind the cause
    unknown = _UNKNOWN_ARGUMENT.search(cause)
    creator = env_creator(name.rpartition(":")[2])
    if unknown is None or unknown[1] not in kwargs or not isinstance(creator, type):
        return f"{cause}, with kwargs {dict(kwargs)}"
    return str(unknown_name("argument", unknown[1], keyword_arguments(creator)))


def env_creator(name: str) -> Any:
    """Return the class or function that makes the environment of an id; None if the id is unknown."""
    entry = gym.registry[name].entry_point if name in gym.registry else None
    return gym.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry


def env_id(env: gym.Env[str, str]) -> str:
    """Return the id that an environment was made by, or the name of its class."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def reset(env: gym.Env[str, str], **arguments: Any) -> tuple[str, dict[str, Any]]:
    """Reset an environment.

    Raises:
        UsageError: the environment says what is wrong with its settings.
        EcrlError: it failed, or did not return a prompt and a dictionary.
    """
    with user_code(f"{env_id(env)}.reset"):
        prompt, info = env.reset(**arguments)
        return as_text(prompt, "prompt"), info


def as_text(value: Any, what: str) -> str:
    """Return a value that the user's code gave, if it is a string.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, str):
        raise TypeError(f"the {what} is {value!r:.80}, not a str")
    return value


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global random generators, which other packages draw from; restore their state at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
