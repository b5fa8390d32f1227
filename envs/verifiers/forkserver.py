"""The process that forks the pool's workers: started once, it has the verifiers' modules loaded.

A module may have a function ``warm_up()`` for what only its first calls are slow at. A worker is thus
there in milliseconds, quick from its first call on, and inherits neither threads nor memory of the trainer.
Run as ``python -m ecrl.envs.verifiers.forkserver FD``; see ``ecrl.envs.verifiers.pool``.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

from ecrl.distributed.parent_death import end_with_parent

_MIB = 2**20


def main(control: Connection) -> None:
    """Fork a worker for every request, until the pool closes its end."""
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
                with suppress(Exception):  # the call itself will say what is wrong with it
                    getattr(import_module(name), "warm_up", lambda: None)()
        child = os.fork()
        if child == 0:
            control.close()
            _work(Connection(line), memory, forkserver)
        os.close(line)
        control.send(child)


def _work(line: Connection, memory: int, forkserver: int) -> None:
    """Answer calls until the pool closes its end. Does not return."""
    end_with_parent(forkserver)
    os.setsid()  # a group of its own, so that all that a call starts can be killed with it
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
    """Bound the address space to so much above what is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + mib * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    # Forks after this line share what is imported here.
    main(Connection(socket.socket(fileno=int(sys.argv[1])).detach()))
