"""The remote sandbox: an HTTP server with SandboxFusion's protocol."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any

import httpx

from ecrl.envs.sandbox.base import Limits, Outcome, SandboxError
from ecrl.envs.sandbox.process import MAX_OUTPUT
from ecrl.errors import UsageError

# Seconds beyond the program's own time, for the network and the server's queue.
_EXTRA_SECONDS = 60.0
_TRIES = 3
# JSON may need six bytes for one byte of output.
_MAX_BODY = 12 * MAX_OUTPUT


class HttpSandbox:
    """Sends each program to ``POST <url>/run_code``; the server decides how it is isolated.

    Args:
        url: address of the server, such as ``http://sandbox:8080``.

    Raises:
        UsageError: no server with SandboxFusion's protocol answers there.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"sandbox=http needs sandbox_url=http://host:port; got {url!r}.")
        self._url = f"{url.rstrip('/')}/run_code"
        _probe(self._url)

    def run(self, program: str, stdin: str = "", *, limits: Limits) -> Outcome:
        """Run a program; see `Sandbox.run`."""
        return _run(self._url, program, stdin, limits)

    def converse(self, judge: str, program: str, *, limits: Limits) -> Outcome:
        """Refuse, because the protocol cannot connect two programs.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "sandbox=http runs stdin tests, call tests and plain `assert f(x) == y`. Other test code has to "
            "talk to the program, for which SandboxFusion's protocol has no means: use sandbox=bubblewrap."
        )


@lru_cache
def _probe(url: str) -> None:
    try:
        outcome = _run(url, "print('here')", "", Limits(30, 512))
    except SandboxError as error:
        raise UsageError(str(error)) from error
    if outcome.stdout != "here\n":
        raise UsageError(f"{url} ran `print('here')` and answered {outcome}.")


def _run(url: str, program: str, stdin: str, limits: Limits) -> Outcome:
    request = {
        "code": _sendable(program),
        "stdin": _sendable(stdin),
        "language": "python",
        "run_timeout": limits.seconds,
        "memory_limit_MB": limits.memory,
    }
    for attempt in range(_TRIES):
        try:
            body = _post(url, request, limits.seconds + _EXTRA_SECONDS)
            return Outcome("output", "", "", 0.0) if body is None else _outcome(json.loads(body))
        except (httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
            failure = f"{type(error).__name__}: {error}"
            if attempt < _TRIES - 1:
                time.sleep(0.5 * 2**attempt)
    raise SandboxError(f"The sandbox at {url} failed {_TRIES} times; last: {failure[-500:]}")


def _post(url: str, request: dict[str, Any], timeout: float) -> bytes | None:
    """Return the body of the answer; None if it is too large."""
    body = bytearray()
    with httpx.stream("POST", url, json=request, timeout=timeout) as response:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_BODY:
                return None
    return bytes(body)


def _outcome(answer: dict[str, Any]) -> Outcome:
    """Read SandboxFusion's answer. If the server failed to run the program, the status is ``error``."""
    result = answer.get("run_result") or {}
    out, err = (str(result.get(name) or "") for name in ("stdout", "stderr"))
    seconds = float(result.get("execution_time") or 0.0)
    if answer["status"] == "SandboxError":
        return Outcome("error", out, err or str(answer.get("message")), seconds)
    if result.get("status") == "TimeLimitExceeded":
        return Outcome("timeout", out, err, seconds)
    if max(len(out), len(err)) > MAX_OUTPUT:
        return Outcome("output", out[:MAX_OUTPUT], err[:MAX_OUTPUT], seconds)
    return Outcome("ok" if answer["status"] == "Success" else "error", out, err, seconds)


def _sendable(text: str) -> str:
    """Replace lone surrogates, which UTF-8 and so JSON cannot encode."""
    return text.encode("utf-8", "replace").decode()
