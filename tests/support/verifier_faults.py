"""Verifiers that misbehave, importable by name as the pool asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


def add(a: int, b: int) -> int:
    return a + b


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def crash() -> None:
    os._exit(3)


def fail() -> None:
    raise ZeroDivisionError("a bug")


def eat(mib: int) -> int:
    return len(bytearray(mib * 2**20))


def where() -> int:
    return os.getpid()


def leave_children(seconds: float) -> None:
    """Start a process that would outlive the call, then hang."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    time.sleep(seconds)


def unpicklable() -> object:
    return threading.Lock()


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and the CPU seconds that it takes."""
    begin = time.process_time()
    value = function(*arguments)
    return value, time.process_time() - begin


def some_misbehave(number: int) -> int:
    """Of a hundred numbers five hang and two crash."""
    if number % 20 == 7:
        time.sleep(3600)
    if number % 50 == 11:
        os._exit(1)
    return number * number
