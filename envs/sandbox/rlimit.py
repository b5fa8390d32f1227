"""The weak sandbox: resource limits alone, for machines without namespaces."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ecrl.envs.sandbox import process
from ecrl.envs.sandbox.base import Outcome
from ecrl.envs.sandbox.runtime import NOBODY, drop_root, find_runtime
from ecrl.errors import UsageError

_WEAK = (
    "sandbox=rlimit limits time, memory and output only: a program can read and change what this user can, "
    "use the network, signal this user's processes and outlive its run. Use it for programs you trust."
)


class RlimitSandbox:
    """Runs each program as a plain process under resource limits, in a scratch folder of its own.

    It keeps mistakes in check, not malice. As the system counts all processes of the user, programs can
    usually start none of their own.

    Args:
        python: the interpreter; None is the one in use.

    Raises:
        UsageError: the trainer is root, and a program without root could not reach the interpreter.
    """

    def __init__(self, python: str | None = None) -> None:
        warnings.warn(_WEAK, stacklevel=2)
        runtime = find_runtime(python)
        if os.geteuid() == 0 and not runtime.public:
            raise UsageError(
                f"sandbox=rlimit gives up root, and then cannot reach {runtime.executable}. Train as another "
                "user, or name an interpreter in an open folder: python=/usr/bin/python3."
            )
        self._command = (*drop_root(), runtime.executable)

    def run(self, program: str, stdin: str = "", *, time_limit: float, memory_limit: int) -> Outcome:
        """Run a program; see `Sandbox.run`."""
        limits = process.Limits(time_limit, memory_limit)
        with _scratch() as folder:
            return process.run(self._command, program, stdin, limits, folder)

    def converse(self, judge: str, program: str, *, time_limit: float, memory_limit: int) -> Outcome:
        """Run two programs that talk; see `Sandbox.converse`."""
        limits = process.Limits(time_limit, memory_limit)
        with _scratch() as folder:
            return process.converse(self._command, judge, program, limits, folder)


@contextmanager
def _scratch() -> Iterator[str]:
    folder = tempfile.mkdtemp()
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder
    finally:
        # A program may leave anything there, even folders that nobody may enter.
        shutil.rmtree(folder, ignore_errors=True)
