"""A sandbox over HTTP, and a server that fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ecrl.envs.sandbox import Limits, Outcome, Sandbox, make_sandbox
from ecrl.envs.sandbox.process import MAX_OUTPUT
from ecrl.errors import UsageError
from tests.support.sandboxes import run


class _Fusion(BaseHTTPRequestHandler):
    """SandboxFusion's `/run_code`, with a local sandbox behind it."""

    sandbox: Sandbox
    fail: list[int]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.fail:
            self.send_error(self.fail.pop())
            return
        assert self.path == "/run_code" and request["language"] == "python"
        if request["code"] == "flood":
            answer: Any = {"status": "Success", "run_result": {"stdout": "x" * (20 * MAX_OUTPUT)}}
        elif request["code"] == "broken":
            answer = {"status": "SandboxError", "message": "no worker", "run_result": None}
        elif request["code"] == "nonsense":
            answer = ["what?"]
        else:
            answer = self._run(request)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        done = self.sandbox.run(
            request["code"],
            request["stdin"],
            limits=Limits(request["run_timeout"], request["memory_limit_MB"]),
        )
        finished = "TimeLimitExceeded" if done.status == "timeout" else "Finished"
        return {
            "status": "Success" if done.status == "ok" else "Failed",
            "message": "",
            "compile_result": None,
            "run_result": {
                "status": finished,
                "execution_time": done.seconds,
                "return_code": int(done.status != "ok"),
                "stdout": done.stdout,
                "stderr": done.stderr,
            },
            "executor_pod_name": None,
            "files": {},
        }

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def fusion(local: Sandbox) -> Iterator[tuple[Sandbox, list[int]]]:
    handler = type("Handler", (_Fusion,), {"sandbox": local, "fail": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield make_sandbox("http", url=f"http://127.0.0.1:{server.server_port}/"), handler.fail
    server.shutdown()
    server.server_close()


def test_http(fusion: tuple[Sandbox, list[int]]) -> None:
    remote, fail = fusion
    assert run(remote, "print(input() * 2)", "añ").stdout == "añañ\n"
    assert run(remote, "1 / 0").status == "error"
    assert "ZeroDivisionError" in run(remote, "1 / 0").stderr
    assert run(remote, "while True: pass", seconds=1).status == "timeout"
    assert run(remote, "\ud800").status == "error"
    assert run(remote, "flood").status == "output"
    assert run(remote, "broken") == Outcome("error", "", "no worker", 0.0)
    fail += [503, 500]
    assert run(remote, "print(1)").stdout == "1\n", "a server that stumbles is asked again"


@pytest.mark.slow
def test_http_that_fails_is_no_verdict(fusion: tuple[Sandbox, list[int]]) -> None:
    from ecrl.envs.sandbox import SandboxError

    remote, fail = fusion
    fail += [500, 500, 500]
    with pytest.raises(SandboxError, match=r"failed 3 times.*500"):
        run(remote, "print(1)")
    with pytest.raises(SandboxError, match="failed 3 times"):
        run(remote, "nonsense")
    with pytest.raises(UsageError, match="bubblewrap"):
        remote.converse("", "", limits=Limits(1, 128))
