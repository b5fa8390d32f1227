"""Asynchronous steps: which environments have them, and the event loop of the process, in which they run.

A step is asynchronous where ``step``, or the ``score`` of a `ReasoningEnv`, is ``async def``. All of a
process run in one event loop, so that what a step opens, such as an HTTP client, serves the next ones too.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar, cast

import gymnasium as gym

from ecrl.envs.base import ReasoningEnv
from ecrl.errors import EcrlError
from ecrl.event_loop import EventLoopThread, cancel_all

T = TypeVar("T")
#: What ``step`` returns, or comes to.
Step = tuple[str, float, bool, bool, dict[str, Any]]

_shared: dict[int, EventLoopThread] = {}
_sharing = threading.Lock()


class StepLostError(EcrlError):
    """An asynchronous step did not return in time, or was cancelled by its own code."""


def is_async(env: gym.Env[str, str]) -> bool:
    """Whether the steps of an environment are asynchronous."""
    base: Any = env.unwrapped
    scores = type(base).step is ReasoningEnv.step and iscoroutinefunction(base.score)
    return iscoroutinefunction(base.step) or scores


def is_concurrent(env: gym.Env[str, str]) -> bool:
    """Whether threads may step several environments of this kind at once; they may unless it says no."""
    return bool(getattr(env.unwrapped, "concurrent", True))


def time_limit(env: gym.Env[str, str], most: float) -> float:
    """Return how many seconds an asynchronous step of an environment may take."""
    return min(getattr(env.unwrapped, "time_limit", None) or most, most)


def step(env: gym.Env[str, str], action: str) -> Step:
    """Step an environment, and wait for what an asynchronous step comes to."""
    return cast("Step", resolved(env.step(action)))


def resolved(value: Awaitable[T] | T) -> T:
    """Return a value; if it is awaitable, wait for it in the event loop of the process.

    Raises:
        RuntimeError: the caller runs in that event loop itself, and should await the value.
    """
    return shared_loop().run(_await(value)) if isawaitable(value) else value


async def within(seconds: float, work: Awaitable[T], name: str) -> T:
    """Await an asynchronous step.

    Args:
        seconds: that it may take.
        work: what its function returned.
        name: of the function, for the errors.

    Raises:
        StepLostError: it took longer, or its own code cancelled it.
        asyncio.CancelledError: the caller was cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        await cancel_all({task})
    if not done:
        raise StepLostError(f"{name} did not return within {seconds:g} s.")
    if task.cancelled():
        raise StepLostError(f"{name} was cancelled by its own code.")
    return task.result()


def shared_loop() -> EventLoopThread:
    """Return the event loop of this process, which is made at the first call."""
    with _sharing:
        loop = _shared.get(os.getpid())
        if loop is None:
            _shared.clear()  # after a fork, the one found here is the parent's
            loop = _shared[os.getpid()] = EventLoopThread("async-steps")
        return loop


def release_at_end(release: Callable[[], Awaitable[None]]) -> None:
    """Have something released when the process's event loop, from which this is called, ends.

    In an event loop of somebody else's nothing happens: its owner ends it.
    """
    loop = _shared.get(os.getpid())
    if loop is not None and loop.loop is asyncio.get_running_loop():
        loop.at_close(release)


def close_shared_loop() -> None:
    """End the event loop of this process with all that it does; a later step makes another."""
    with _sharing:
        loop = _shared.pop(os.getpid(), None)
    if loop is not None:
        loop.close()


atexit.register(close_shared_loop)


async def _await(value: Awaitable[T]) -> T:
    return await value
