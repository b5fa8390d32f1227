"""What every sandbox does: run a Python program within limits and tell what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ecrl.envs.arguments import check_integer, check_seconds
from ecrl.errors import EcrlError

Status = Literal["ok", "error", "timeout", "output"]

MIB = 1 << 20


class SandboxError(EcrlError):
    """The sandbox itself failed. No program can cause this: what a program does is an `Outcome`."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: wall time from the program's start; CPU time is limited to this, rounded up, plus one second.
        memory: MiB of address space for each process of the program.

    Raises:
        UsageError: one of them is out of range.
    """

    seconds: float
    memory: int

    def __post_init__(self) -> None:
        check_seconds("time_limit", self.seconds)
        check_integer("memory_limit", self.memory, 64, MIB)


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        status: ``ok`` (it ended with exit code 0), ``error`` (it ended otherwise), ``timeout`` (it was
            killed at its time limit), ``output`` (it was killed because it wrote too much).
        stdout: what it wrote there; invalid UTF-8 is replaced.
        stderr: likewise.
        seconds: how long it ran; the start of the sandbox is not counted.
    """

    status: Status
    stdout: str
    stderr: str
    seconds: float


class Sandbox(Protocol):
    """Runs untrusted programs. Its methods may be called from many threads at once."""

    def run(self, program: str, stdin: str = "", *, limits: Limits) -> Outcome:
        """Run a Python program until it ends or reaches a limit.

        Args:
            program: the source.
            stdin: what the program reads from standard input.
            limits: what the program may use.

        Raises:
            SandboxError: the sandbox could not be started.
        """
        ...

    def converse(self, judge: str, program: str, *, limits: Limits) -> Outcome:
        """Run a judge and a program in two sandboxes; each one's stdout is the other's stdin.

        Args:
            judge: the source whose outcome is returned; when it ends, ``program`` is killed.
            program: the untrusted source.
            limits: what each of the two may use.

        Raises:
            UsageError: this sandbox cannot connect two programs.
            SandboxError: the sandbox could not be started.
        """
        ...
