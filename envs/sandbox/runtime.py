"""Finds the Python that runs the programs and its files, and the command that gives up root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ecrl.errors import UsageError

#: User and group id of a program if the trainer runs as root.
NOBODY = 65534
_ASK = (
    "import json, os, sys; "
    "print(json.dumps([os.path.realpath(getattr(sys, '_base_executable', sys.executable)), "
    "os.path.realpath(sys.base_prefix), os.path.dirname(os.path.realpath(os.__file__))]))"
)


@dataclass(frozen=True)
class Runtime:
    """An interpreter, outside any virtual environment.

    Attributes:
        executable: path of the interpreter, with links resolved.
        prefix: the folder in which it is installed.
        library: the folder of the standard library.
    """

    executable: str
    prefix: str
    library: str

    @property
    def public(self) -> bool:
        """Whether every user may reach the interpreter and its library."""
        paths = [Path(self.executable), *Path(self.executable).parents, *Path(self.library).parents]
        return all(path.stat().st_mode & 0o001 for path in paths)


@lru_cache
def find_runtime(python: str | None = None) -> Runtime:
    """Ask an interpreter where its files are.

    Args:
        python: its path or name; None is the one in use.

    Raises:
        UsageError: there is no such interpreter, or it does not answer.
    """
    path = sys.executable if python is None else shutil.which(python)
    if not path:
        raise UsageError(f"python={python!r} is not a Python interpreter; give a path, or leave it out.")
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True
        )
        return Runtime(*json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        raise UsageError(f"python={path!r} does not answer like a Python interpreter: {error}.") from error


def drop_root() -> list[str]:
    """Return the command that runs a program as nobody if the trainer runs as root; otherwise nothing.

    `Popen(user=…)` would do the same, but it forks, which copies a large trainer's page tables each time.

    Raises:
        UsageError: `setpriv` is not installed.
    """
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UsageError(
            "A sandbox gives up root with `setpriv`, which is not installed: apt-get install util-linux, "
            "or train as another user."
        )
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return [setpriv, *ids, "--inh-caps=-all", "--bounding-set=-all"]
