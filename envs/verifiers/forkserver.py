"""The process that forks the pool's workers. It is started once and imports the verifiers' modules.

A module may define ``warm_up()``, which is called once after the import, for work that would make a worker's
first calls slow. So a worker starts within milliseconds, is fast from its first call, and inherits neither
threads nor memory of the trainer. Run as ``python -m ecrl.envs.verifiers.forkserver FD``; see
``ecrl.envs.verifiers.pool``.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

from ecrl.distributed.parent_death import end_with_parent

_MIB = 2**20


def main(control: Connection) -> None:
    """Fork a worker for every request, until the pool closes its end of the connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    forkserver = os.getpid()
    known: set[str] = set()
    while True:
        try:
            modules, memory = control.recv()
            line = recv_handle(control)
        except EOFError:
            return
        for name in modules:
            if name not in known:
                known.add(name)
                with suppress(Exception):  # the call itself will raise it again
                    getattr(import_module(name), "warm_up", lambda: None)()
        child = os.fork()
        if child == 0:
            control.close()
            _work(Connection(line), memory, forkserver)
        os.close(line)
        control.send(child)


def _work(line: Connection, memory: int, forkserver: int) -> None:
    """Answer calls until the pool closes its end of the connection. Does not return."""
    end_with_parent(forkserver)
    os.setsid()  # a process group of its own, so that everything a call starts can be killed with it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _limit_memory(memory)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _answer(line)
    os._exit(0)


def _answer(line: Connection) -> None:
    request = line.recv_bytes()
    try:
        answer = True, _call(request)
    except Exception as error:
        error.add_note(f"In the verifier's process:\n{traceback.format_exc()}")
        answer = False, error
    try:
        line.send(answer)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception:  # the result or the error cannot be pickled
        line.send((False, TypeError(f"the verifier's answer cannot be sent: {answer[1]!r:.200}")))


def _call(request: bytes) -> object:
    function, arguments = pickle.loads(request)
    return function(*arguments)


def _limit_memory(mib: int) -> None:
    """Limit the address space to ``mib`` MiB above what is in use now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + mib * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    # Forks after this line share what is imported here.
    main(Connection(socket.socket(fileno=int(sys.argv[1])).detach()))
