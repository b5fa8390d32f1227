"""The default sandbox: Linux namespaces, made by bubblewrap."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path

from ecrl.envs.sandbox import process
from ecrl.envs.sandbox.base import MIB, Limits, Outcome, SandboxError
from ecrl.envs.sandbox.runtime import NOBODY, Runtime, drop_root, find_runtime
from ecrl.errors import UsageError

_SCRATCH = 16 * MIB
# Where the outer sandbox mounts an interpreter from a folder that only root may enter, such as /root.
_MOUNTED = "/tmp/python"


class BubblewrapSandbox:
    """Runs each program in its own namespaces, as the user nobody.

    A program sees ``/usr``, ``/lib*`` and the Python that runs it, all read-only, and an empty scratch
    folder ``/tmp`` in memory that is deleted when it ends. It has no network, sees no other process, and
    cannot make namespaces. Limits: `process.MAX_PROCESSES`, `MAX_OUTPUT`, `MAX_FILE`, and those of `run`.

    Args:
        python: the interpreter; None is the one in use. Its site-packages are hidden.

    Raises:
        UsageError: bubblewrap is not installed, or the system forbids it.
    """

    def __init__(self, python: str | None = None) -> None:
        self._command = _command(find_runtime(python))
        _probe(self._command)

    def run(self, program: str, stdin: str = "", *, limits: Limits) -> Outcome:
        """Run a program; see `Sandbox.run`."""
        return process.run(self._command, program, stdin, limits)

    def converse(self, judge: str, program: str, *, limits: Limits) -> Outcome:
        """Run two connected programs; see `Sandbox.converse`."""
        return process.converse(self._command, judge, program, limits)


@lru_cache
def _probe(command: tuple[str, ...]) -> None:
    """Run one program, so that a system that forbids namespaces is noticed before training starts."""
    try:
        outcome = process.run(command, "print('here')", "", Limits(30, 512))
    except SandboxError as error:
        raise UsageError(
            f"bubblewrap is installed, but cannot isolate a program: {error} In a container, allow user "
            "namespaces (docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined), "
            "or choose sandbox=http, or the weaker sandbox=rlimit."
        ) from error
    if outcome.stdout != "here\n":
        raise UsageError(
            f"bubblewrap works, but its Python interpreter does not start: {outcome.stderr[-500:]}"
        )


@lru_cache
def _command(runtime: Runtime) -> tuple[str, ...]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UsageError(
            "Programs run in bubblewrap, which is not installed: apt-get install bubblewrap (or dnf, "
            "pacman). Without it, choose sandbox=http, or the weaker sandbox=rlimit."
        )
    drop = drop_root()
    if not drop or runtime.public:
        return (*drop, *_inner(bwrap, runtime, runtime.prefix))
    # The user nobody cannot reach the interpreter. While we are still root, mount it in a folder that is open
    # to all, inside this sandbox only.
    outer = [bwrap, "--dev-bind", "/", "/", "--tmpfs", "/tmp", "--ro-bind", runtime.prefix, _MOUNTED]
    return (*outer, "--die-with-parent", *drop, *_inner(bwrap, runtime, _MOUNTED))


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
    """Mount the system's programs and shared libraries, but not /etc, /home, /root or /var."""
    options = ["--ro-bind", "/usr", "/usr"]
    for path in sorted(Path("/").glob("lib*")):
        options += (
            ["--symlink", os.readlink(path), str(path)]
            if path.is_symlink()
            else (["--ro-bind", str(path), str(path)])
        )
    return options


def _python(runtime: Runtime, prefix: str) -> list[str]:
    """Mount the interpreter and the standard library, without the installed packages."""
    options: list[str] = []
    if not runtime.prefix.startswith("/usr"):
        for path in (runtime.executable, f"{runtime.prefix}/lib"):
            options += ["--ro-bind", path.replace(runtime.prefix, prefix, 1), path]
    packages = f"{runtime.library}/site-packages"
    return [*options, "--tmpfs", packages, "--remount-ro", packages] if Path(packages).is_dir() else options
