"""Sandboxes, which run the programs that a policy writes."""

from __future__ import annotations

from ecrl.envs.sandbox.base import Limits, Outcome, Sandbox, SandboxError, Status
from ecrl.errors import UsageError, unknown_name

__all__ = ["Limits", "Outcome", "Sandbox", "SandboxError", "Status", "make_sandbox"]


def make_sandbox(name: str = "bubblewrap", *, python: str | None = None, url: str | None = None) -> Sandbox:
    """Make a sandbox by its name.

    Args:
        name: ``bubblewrap``, ``rlimit`` (weak) or ``http``.
        python: the interpreter for programs; None is the one in use. Not with ``http``.
        url: the server; only with ``http``.

    Raises:
        UsageError: the name is unknown, an argument does not fit it, or it does not work on this machine.
    """
    if name == "http":
        from ecrl.envs.sandbox.http_sandbox import HttpSandbox

        if python is not None:
            raise UsageError("With sandbox=http the server chooses the interpreter; leave python= out.")
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
