"""The sandbox of choice: Linux namespaces, by bubblewrap."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path

from ecrl.envs.sandbox import process
from ecrl.envs.sandbox.base import Outcome, SandboxError
from ecrl.envs.sandbox.runtime import NOBODY, Runtime, drop_root, find_runtime
from ecrl.errors import UsageError

_SCRATCH = 16 * process.MIB
# Where the outer sandbox shows an interpreter that lies in a closed folder, such as root's home.
_SHOWN = "/tmp/python"


class BubblewrapSandbox:
    """Runs each program in namespaces of its own, as nobody.

    A program sees ``/usr``, ``/lib*`` and the Python that runs it, all read-only, and an empty scratch
    folder ``/tmp`` in memory that vanishes with it. It has no network, sees no other process, and may make
    no namespaces. Limits: `process.MAX_PROCESSES`, `MAX_OUTPUT`, `MAX_FILE`, and those of `run`.

    Args:
        python: the interpreter; None is the one in use. Its site-packages are hidden.

    Raises:
        UsageError: bubblewrap is missing, or the system forbids it.
    """

    def __init__(self, python: str | None = None) -> None:
        self._command = _command(find_runtime(python))
        _probe(self._command)

    def run(self, program: str, stdin: str = "", *, time_limit: float, memory_limit: int) -> Outcome:
        """Run a program; see `Sandbox.run`."""
        return process.run(self._command, program, stdin, process.Limits(time_limit, memory_limit))

    def converse(self, judge: str, program: str, *, time_limit: float, memory_limit: int) -> Outcome:
        """Run two programs that talk; see `Sandbox.converse`."""
        return process.converse(self._command, judge, program, process.Limits(time_limit, memory_limit))


@lru_cache
def _probe(command: tuple[str, ...]) -> None:
    """Run one program, so that a system that forbids namespaces is found before the training starts."""
    try:
        outcome = process.run(command, "print('here')", "", process.Limits(30, 512))
    except SandboxError as error:
        raise UsageError(
            f"bubblewrap is here, but cannot isolate: {error} In a container, allow user namespaces "
            "(docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined), "
            "or choose sandbox=http, or the weaker sandbox=rlimit."
        ) from error
    if outcome.stdout != "here\n":
        raise UsageError(f"bubblewrap is here, but its Python is not well: {outcome.stderr[-500:]}")


@lru_cache
def _command(runtime: Runtime) -> tuple[str, ...]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UsageError(
            "Code is run in bubblewrap, which is not installed: apt-get install bubblewrap (or dnf, pacman). "
            "Without it, choose sandbox=http, or the weaker sandbox=rlimit."
        )
    drop = drop_root()
    if not drop or runtime.public:
        return (*drop, *_inner(bwrap, runtime, runtime.prefix))
    # Nobody cannot reach the interpreter. While still root, show it in an open place, to this one only.
    outer = [bwrap, "--dev-bind", "/", "/", "--tmpfs", "/tmp", "--ro-bind", runtime.prefix, _SHOWN]
    return (*outer, "--die-with-parent", *drop, *_inner(bwrap, runtime, _SHOWN))


def _inner(bwrap: str, runtime: Runtime, prefix: str) -> list[str]:
    return [
        bwrap,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox", "--cap-drop", "ALL"),
        *_system(),
        *_python(runtime, prefix),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", str(_SCRATCH), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--size", str(_SCRATCH), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"),
        runtime.executable,
    ]


def _system() -> list[str]:
    """Programs and shared libraries of the system; nothing of /etc, /home, /root, /var."""
    options = ["--ro-bind", "/usr", "/usr"]
    for path in sorted(Path("/").glob("lib*")):
        options += (
            ["--symlink", os.readlink(path), str(path)]
            if path.is_symlink()
            else (["--ro-bind", str(path), str(path)])
        )
    return options


def _python(runtime: Runtime, prefix: str) -> list[str]:
    """The interpreter and its library, without the packages installed beside them."""
    options: list[str] = []
    if not runtime.prefix.startswith("/usr"):
        for path in (runtime.executable, f"{runtime.prefix}/lib"):
            options += ["--ro-bind", path.replace(runtime.prefix, prefix, 1), path]
    packages = f"{runtime.library}/site-packages"
    return [*options, "--tmpfs", packages, "--remount-ro", packages] if Path(packages).is_dir() else options
