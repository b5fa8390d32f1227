"""Which Python runs the programs, where its files are, and as whom it runs."""

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

#: Whom a program runs as when the trainer is root.
NOBODY = 65534
_ASK = (
    "import json, os, sys; "
    "print(json.dumps([os.path.realpath(getattr(sys, '_base_executable', sys.executable)), "
    "os.path.realpath(sys.base_prefix), os.path.dirname(os.path.realpath(os.__file__))]))"
)


@dataclass(frozen=True)
class Runtime:
    """An interpreter outside any virtual environment.

    Attributes:
        executable: its real path.
        prefix: where it is installed.
        library: the standard library's folder.
    """

    executable: str
    prefix: str
    library: str

    @property
    def public(self) -> bool:
        """Whether any user may reach it: no folder on the way is closed."""
        paths = [Path(self.executable), *Path(self.executable).parents, *Path(self.library).parents]
        return all(path.stat().st_mode & 0o001 for path in paths)


@lru_cache
def find_runtime(python: str | None = None) -> Runtime:
    """Ask an interpreter where it lives.

    Args:
        python: its path or name; None is the one in use.

    Raises:
        UsageError: there is none, or it does not answer.
    """
    path = sys.executable if python is None else shutil.which(python)
    if not path:
        raise UsageError(f"python={python!r} is no Python interpreter; give a path, or leave it out.")
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK], capture_output=True, text=True, timeout=60, check=True
        )
        return Runtime(*json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        raise UsageError(f"python={path!r} does not answer as a Python interpreter does: {error}.") from error


def drop_root() -> list[str]:
    """The command that gives root away, for a trainer that is root; else nothing.

    `Popen(user=…)` would do, but makes it fork, which copies a large trainer's page tables each time.

    Raises:
        UsageError: there is no `setpriv`.
    """
    if os.geteuid():
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UsageError(
            "A sandbox gives up root by `setpriv`, which is not here: apt-get install util-linux, "
            "or train as another user."
        )
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    return [setpriv, *ids, "--inh-caps=-all", "--bounding-set=-all"]
