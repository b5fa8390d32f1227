"""Runs verifiers in worker processes, so that no response can stop the run.

One pool serves all environments of a process. A call that does not return in time is killed together with
everything that it started, and a worker that dies is replaced. Other calls go on in both cases.
"""

from __future__ import annotations

import atexit
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

from ecrl.errors import EcrlError, UsageError

_CLOSING = 2.0  # seconds in which the forkserver may end by itself


class VerifierTimeoutError(EcrlError):
    """A verifier did not return in time and was killed."""


class VerifierCrashError(EcrlError):
    """A verifier's process died: killed, out of memory, or ended by the verifier itself."""


@dataclass
class PoolStats:
    """Counts of a pool, since it was made.

    Attributes:
        calls: calls that began.
        timeouts: calls that were killed at their time limit.
        crashes: calls whose process died.
        queue_seconds: time that all calls together waited for a worker.
    """

    calls: int = 0
    timeouts: int = 0
    crashes: int = 0
    queue_seconds: float = 0.0


class _Worker:
    """A process that answers one call at a time."""

    def __init__(self, line: Connection, pid: int) -> None:
        self.line = line
        self.pid = pid
        self.calls = 0

    def call(self, request: bytes, timeout: float) -> Any:
        """Send a call and wait for its answer."""
        self.calls += 1
        try:
            self.line.send_bytes(request)
            if not self.line.poll(timeout):
                raise VerifierTimeoutError(f"A verifier did not return within {timeout:g} s.")
            return self.line.recv()
        except (EOFError, ConnectionResetError, BrokenPipeError):
            raise VerifierCrashError("A verifier's process died (out of memory, or killed).") from None

    def kill(self) -> None:
        """Kill the worker and every process that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.line.close()


class VerifierPool:
    """Worker processes for verifiers. Any number of threads may call `run` at the same time.

    Args:
        workers: number of processes; None takes one for each core that this process may use.
        memory: MiB that a worker may use above what it uses at its start.
        recycle: number of calls after which a worker is replaced, because verifiers may leak memory.

    Raises:
        UsageError: a number is below 1.
    """

    def __init__(self, workers: int | None = None, *, memory: int = 2048, recycle: int = 5000) -> None:
        workers = _cores() if workers is None else workers
        for name, value in {"workers": workers, "memory": memory, "recycle": recycle}.items():
            if value < 1:
                raise UsageError(f"A verifier pool needs {name} of 1 or more; got {value}.")
        self.workers = workers
        self._memory = memory
        self._recycle = recycle
        self._modules: set[str] = set()
        self._stats = PoolStats()
        self._lock = threading.Lock()
        self._closed = False
        self._forkserver: subprocess.Popen[bytes] | None = None
        # None stands for a worker that has not been made yet. Last in, first out, so that no more workers are
        # made than are needed.
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(None)

    def run(self, function: Callable[..., Any], *arguments: Any, timeout: float = 10.0) -> Any:
        """Call ``function(*arguments)`` in a worker and return what it returns.

        Blocks while every worker is busy; this time does not count towards ``timeout``.

        Args:
            function: importable by name; function, arguments and result are pickled.
            *arguments: arguments of the call.
            timeout: seconds that the call may take.

        Raises:
            VerifierTimeoutError: the call took longer and was killed.
            VerifierCrashError: the worker's process died.
            EcrlError: the pool is closed.
            Exception: whatever ``function`` raised.
        """
        request = pickle.dumps((function, arguments))
        begin = time.perf_counter()
        worker = self._idle.get()
        alive = False
        try:
            with self._lock:
                self._stats.calls += 1
                self._stats.queue_seconds += time.perf_counter() - begin
            worker = worker or self._make(function.__module__)
            returned, value = self._count(worker, request, timeout)
            alive = worker.calls < self._recycle
        finally:
            if worker is not None and not alive:
                worker.kill()
            self._idle.put(worker if alive else None)
        if returned:
            return value
        raise value

    @property
    def stats(self) -> PoolStats:
        """The counts so far."""
        with self._lock:
            return replace(self._stats)

    def close(self) -> None:
        """Kill all workers; running calls fail. May be called twice."""
        with self._lock:
            self._closed = True
            forkserver, self._forkserver = self._forkserver, None
        if forkserver is None:
            return
        self._control.close()  # the forkserver ends, and its workers with it
        try:
            forkserver.wait(_CLOSING)
        except subprocess.TimeoutExpired:
            forkserver.kill()
            forkserver.wait()

    def _count(self, worker: _Worker, request: bytes, timeout: float) -> tuple[bool, Any]:
        try:
            answer: tuple[bool, Any] = worker.call(request, timeout)
            return answer
        except EcrlError as error:
            with self._lock:
                self._stats.timeouts += isinstance(error, VerifierTimeoutError)
                self._stats.crashes += isinstance(error, VerifierCrashError)
            raise

    def _make(self, module: str) -> _Worker:
        """Let the forkserver fork a worker that has imported the modules of all functions called so far."""
        with self._lock:
            if self._closed:
                raise EcrlError("This verifier pool is closed.")
            self._modules.add(module)
            mine, its = socket.socketpair()
            for attempt in (1, 2):  # a forkserver that died is replaced once
                forkserver = self._forkserver or self._start()
                try:
                    self._control.send((sorted(self._modules), self._memory))
                    send_handle(self._control, its.fileno(), forkserver.pid)
                    pid: int = self._control.recv()
                    break
                except (EOFError, ConnectionResetError, BrokenPipeError):
                    self._forkserver = None
                    if attempt == 2:
                        raise EcrlError("The process that starts verifiers died twice.") from None
            its.close()
            return _Worker(Connection(mine.detach()), pid)

    def _start(self) -> subprocess.Popen[bytes]:
        mine, its = socket.socketpair()
        # A session of its own, so that Ctrl-C reaches only the trainer, which then closes the pool.
        self._forkserver = subprocess.Popen(
            [sys.executable, "-m", "ecrl.envs.verifiers.forkserver", str(its.fileno())],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        its.close()
        self._control = Connection(mine.detach())
        return self._forkserver


_shared: dict[int, VerifierPool] = {}
_sharing = threading.Lock()


def shared_pool() -> VerifierPool:
    """Return the pool of this process, which is made at the first call and closed at exit.

    If a launcher started several processes on this machine, each pool gets its share of the cores.
    """
    with _sharing:
        pool = _shared.get(os.getpid())
        if pool is None:
            _shared.clear()  # after a fork, the pool found here is the parent's
            pool = _shared[os.getpid()] = VerifierPool()
            atexit.register(pool.close)
        return pool


def shared_stats() -> PoolStats:
    """Return the counts of this process's pool; zeros if it has none."""
    pool = _shared.get(os.getpid())
    return pool.stats if pool else PoolStats()


def _cores() -> int:
    beside = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // beside, 1)
