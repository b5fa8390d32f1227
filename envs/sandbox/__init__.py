"""Sandboxes: they run programs that a policy wrote."""

from __future__ import annotations

from ecrl.envs.sandbox.base import Outcome, Sandbox, SandboxError, Status
from ecrl.errors import UsageError, unknown_name

__all__ = ["Outcome", "Sandbox", "SandboxError", "Status", "make_sandbox"]


def make_sandbox(name: str = "bubblewrap", *, python: str | None = None, url: str | None = None) -> Sandbox:
    """Make a sandbox by its name.

    Args:
        name: ``bubblewrap``, ``rlimit`` (weak) or ``http``.
        python: the interpreter for programs; None is the one in use. Not for ``http``.
        url: the server, for ``http`` alone.

    Raises:
        UsageError: it is unknown, or this machine cannot offer it.
    """
    if name == "http":
        from ecrl.envs.sandbox.http_sandbox import HttpSandbox

        if python is not None:
            raise UsageError("python= is the server's matter with sandbox=http; leave it out.")
        return HttpSandbox(url or "")
    if url is not None:
        raise UsageError(f"sandbox_url={url!r} is for sandbox=http only.")
    if name == "bubblewrap":
        from ecrl.envs.sandbox.bubblewrap import BubblewrapSandbox

        return BubblewrapSandbox(python)
    if name == "rlimit":
        from ecrl.envs.sandbox.rlimit import RlimitSandbox

        return RlimitSandbox(python)
    raise unknown_name("sandbox", name, ["bubblewrap", "rlimit", "http"])
