"""The weak sandbox: resource limits only, for machines without namespaces."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ecrl.envs.sandbox import process
from ecrl.envs.sandbox.base import Limits, Outcome
from ecrl.envs.sandbox.runtime import NOBODY, drop_root, find_runtime
from ecrl.errors import UsageError

_WEAK = (
    "sandbox=rlimit limits time, memory and output only: a program can read and change what this user can, "
    "use the network, signal this user's processes and outlive its run. Use it for programs you trust."
)


class RlimitSandbox:
    """Runs each program as a plain process under resource limits, in its own scratch folder.

    It protects against mistakes, not against malice. A program can usually start no processes, because the
    system counts all processes of the user against the limit.

    Args:
        python: the interpreter; None is the one in use.

    Raises:
        UsageError: the trainer runs as root, and a program that does not could not reach the interpreter.
    """

    def __init__(self, python: str | None = None) -> None:
        warnings.warn(_WEAK, stacklevel=2)
        runtime = find_runtime(python)
        if os.geteuid() == 0 and not runtime.public:
            raise UsageError(
                f"sandbox=rlimit runs programs without root, who cannot reach {runtime.executable}. Train as "
                "another user, or name an interpreter that all users can reach: python=/usr/bin/python3."
            )
        self._command = (*drop_root(), runtime.executable)

    def run(self, program: str, stdin: str = "", *, limits: Limits) -> Outcome:
        """Run a program; see `Sandbox.run`."""
        with _scratch() as folder:
            return process.run(self._command, program, stdin, limits, folder)

    def converse(self, judge: str, program: str, *, limits: Limits) -> Outcome:
        """Run two connected programs; see `Sandbox.converse`."""
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
        # A program may leave anything there, even folders that cannot be entered.
        shutil.rmtree(folder, ignore_errors=True)
