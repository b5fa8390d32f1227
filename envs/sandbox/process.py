"""Starts sandboxed programs, watches them, and kills all their processes at the end."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecrl.envs.sandbox.base import MIB, Limits, Outcome, SandboxError, Status

#: Most bytes that a program may write to stdout, and most to stderr.
MAX_OUTPUT = 4 * MIB
#: Most bytes that a program may write to one file.
MAX_FILE = 16 * MIB
#: Most processes and threads together that a program may have.
MAX_PROCESSES = 16

_BOOT = Path(__file__).with_name("boot.py").read_text(encoding="utf-8")
# How long the sandbox's own start may take: a busy machine is not the program's fault.
_START_SECONDS = 60.0
_START_TRIES = 3
_TICK = 0.05
_CHUNK = 1 << 16
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# Starting a program waits for the kernel more than it computes, so two programs per core keep the cores
# busy. More would only use up each other's time limits.
_slots = threading.BoundedSemaphore(2 * (os.cpu_count() or 1))


def _renew_slots() -> None:
    # Slots that the parent's threads hold at the time of a fork would never be released in the child.
    global _slots
    _slots = threading.BoundedSemaphore(2 * (os.cpu_count() or 1))


os.register_at_fork(after_in_child=_renew_slots)


def run(command: Sequence[str], program: str, stdin: str, limits: Limits, cwd: str = "/") -> Outcome:
    """Run a program.

    Args:
        command: starts a Python interpreter; options are appended. It must pass on open file descriptors.
        program: the source.
        stdin: what the program reads from standard input.
        limits: what the program may use.
        cwd: the folder in which ``command`` starts.

    Raises:
        SandboxError: the program could not be started.
    """

    def once() -> Outcome:
        with _sealed(stdin) as text, _Job(command, program, limits, text, subprocess.PIPE, cwd) as job:
            return job.finish()

    return _retry_start(once)


def converse(command: Sequence[str], judge: str, program: str, limits: Limits, cwd: str = "/") -> Outcome:
    """Run two programs, each in its own sandbox; each one's stdout is the other's stdin.

    Args:
        command: as in `run`.
        judge: the program to wait for; when it ends, the other is killed.
        program: the other program.
        limits: what each of the two may use.
        cwd: as in `run`.

    Returns:
        The judge's outcome, with an empty ``stdout``.

    Raises:
        SandboxError: one of them could not be started.
    """

    def once() -> Outcome:
        with contextlib.ExitStack() as stack:
            ask_read, ask_write, say_read, say_write = (
                stack.enter_context(os.fdopen(fd, "rb" if i % 2 == 0 else "wb", 0))
                for i, fd in enumerate((*os.pipe(), *os.pipe()))
            )
            stack.enter_context(_Job(command, program, limits, ask_read.fileno(), say_write.fileno(), cwd))
            judging = stack.enter_context(
                _Job(command, judge, limits, say_read.fileno(), ask_write.fileno(), cwd)
            )
            # Close our copies, or neither program would see that the other has ended.
            for end in (ask_read, ask_write, say_read, say_write):
                end.close()
            return judging.finish()

    return _retry_start(once)


def _retry_start(once: Callable[[], Outcome]) -> Outcome:
    with _slots:
        for _ in range(_START_TRIES - 1):
            try:
                return once()
            except SandboxError:
                # The machine may be short of processes for a moment.
                time.sleep(0.2)
        return once()


@dataclass
class _Stream:
    """What a program wrote to one of its outputs."""

    fd: int
    data: bytearray = field(default_factory=bytearray)
    open: bool = True

    def read(self) -> None:
        try:
            chunk = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return
        self.data += chunk
        self.open = bool(chunk)

    @property
    def full(self) -> bool:
        return len(self.data) > MAX_OUTPUT

    @property
    def text(self) -> str:
        return bytes(self.data[:MAX_OUTPUT]).decode("utf-8", "replace")


class _Job:
    """A running program; leaving its context kills it and all its processes.

    Raises:
        SandboxError: the program did not start.
    """

    def __init__(
        self, command: Sequence[str], program: str, limits: Limits, stdin: int, stdout: int, cwd: str
    ) -> None:
        self._limits = limits
        began, started = os.pipe()
        try:
            with _sealed(program) as source:
                numbers = (source, started, *_resource_limits(limits))
                self._process = subprocess.Popen(
                    [*command, "-I", "-S", "-X", "utf8", "-c", _BOOT, *map(str, numbers)],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    pass_fds=(source, started),
                    cwd=cwd,
                    # Not the trainer's environment variables: they hold keys, and /proc shows them.
                    env={"HOME": "/tmp", "PATH": "/usr/bin"},
                    start_new_session=True,
                )
            os.close(started)
            started = -1
            self._streams = {
                name: _Stream(pipe.fileno())
                for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr))
                if pipe is not None
            }
            for stream in self._streams.values():
                os.set_blocking(stream.fd, False)
            self._await_start(began)
        except OSError as error:
            raise SandboxError(f"The sandbox did not start: {error}.") from error
        finally:
            os.close(began)
            if started >= 0:
                os.close(started)
        self._start = time.monotonic()

    def __enter__(self) -> _Job:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def finish(self) -> Outcome:
        """Wait until the program ends, or kill it at a limit."""
        status = self._pump(self._start + self._limits.seconds)
        seconds = time.monotonic() - self._start
        self._kill()
        if status == "ok":
            self._drain()
            full = any(stream.full for stream in self._streams.values())
            status = "output" if full else "error" if self._process.returncode else "ok"
        texts = {name: stream.text for name, stream in self._streams.items()}
        return Outcome(status, texts.get("stdout", ""), texts["stderr"], seconds)

    def _await_start(self, began: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(began, selectors.EVENT_READ)
            if selector.select(_START_SECONDS) and os.read(began, 1) == b"+":
                return
        self._kill()
        self._drain()
        said = self._streams["stderr"].text.strip()[-500:]
        self.__exit__()
        raise SandboxError(f"The sandbox did not start a program: {said or 'it wrote no message'}")

    def _pump(self, deadline: float) -> Status:
        """Read until the process has ended (``ok``, whatever its exit code) or must be killed."""
        with selectors.DefaultSelector() as selector:
            for stream in self._streams.values():
                selector.register(stream.fd, selectors.EVENT_READ, stream)
            while self._process.poll() is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return "timeout"
                if not selector.get_map():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._process.wait(left)
                    continue
                # Look again after a short while: a process may end while its child keeps the pipes open.
                for key, _ in selector.select(min(left, _TICK)):
                    key.data.read()
                    if key.data.full:
                        return "output"
                    if not key.data.open:
                        selector.unregister(key.fd)
        return "ok"

    def _drain(self) -> None:
        """Read what is left in the pipes, without waiting and not far beyond `MAX_OUTPUT`."""
        for stream in self._streams.values():
            size = -1
            while stream.open and not stream.full and size < len(stream.data):
                size = len(stream.data)
                stream.read()

    def _kill(self) -> None:
        """Kill the process and its group; a PID namespace ends with its first process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _resource_limits(limits: Limits) -> list[int]:
    """Return the limits in the order and units that `boot.py` takes them."""
    # One more second of CPU time, so that the wall clock ends a program first, as a timeout.
    return [math.ceil(limits.seconds) + 1, limits.memory * MIB, MAX_PROCESSES, MAX_FILE]


@contextlib.contextmanager
def _sealed(text: str) -> Iterator[int]:
    """Write a text to an unnamed, read-only file in memory; yield its descriptor, set to the beginning."""
    fd = os.memfd_create("text", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(text.encode("utf-8", "surrogatepass"))
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        yield fd
    finally:
        os.close(fd)
