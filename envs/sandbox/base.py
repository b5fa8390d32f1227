"""What every sandbox is: it runs a Python program on a text and tells what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ecrl.errors import EcrlError

Status = Literal["ok", "error", "timeout", "output"]


class SandboxError(EcrlError):
    """The sandbox itself failed. No program can cause it: what a program does is an `Outcome`."""


@dataclass(frozen=True)
class Outcome:
    """What became of a program.

    Attributes:
        status: ``ok`` (it ended with exit code 0), ``error`` (it ended otherwise), ``timeout`` (it was
            killed at its time limit), ``output`` (it was killed because it wrote too much).
        stdout: what it wrote; invalid UTF-8 is replaced.
        stderr: likewise.
        seconds: how long it ran; the start of the sandbox is not counted.
    """

    status: Status
    stdout: str
    stderr: str
    seconds: float


class Sandbox(Protocol):
    """Runs programs that nobody trusts. Safe to call from many threads at once."""

    def run(self, program: str, stdin: str = "", *, time_limit: float, memory_limit: int) -> Outcome:
        """Run a Python program to its end or its limit.

        Args:
            program: the source.
            stdin: what it reads from standard input.
            time_limit: seconds of wall time, from when the program begins.
            memory_limit: MiB of address space for each of its processes.

        Raises:
            UsageError: a limit makes no sense.
            SandboxError: the sandbox could not be started.
        """
        ...

    def converse(self, judge: str, program: str, *, time_limit: float, memory_limit: int) -> Outcome:
        """Run a judge and a program, apart, where each one's stdout is the other's stdin.

        Args:
            judge: the source whose outcome is returned; ``program`` is killed at its end.
            program: the source that nobody trusts.
            time_limit: as in `run`, for the judge.
            memory_limit: as in `run`, for each.

        Raises:
            UsageError: a limit makes no sense, or this sandbox cannot do it.
            SandboxError: the sandbox could not be started.
        """
        ...
