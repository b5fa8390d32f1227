"""A server with OpenAI's chat protocol, in a process of its own, that can be told to fail in many ways.

It grades the response between the marks: 10 if it is the reference, else by the share of digits in it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.support.paths import ROOT

_RESPONSE = re.compile(r"<response-(\w+)>\n(.*)\n</response-\1>", re.S)
_REFERENCE = re.compile(r"Reference answer:\n(.*?)\n\n", re.S)
_FORMS = {"json": '{"score": %g}', "boxed": "\\boxed{%g}", "number": "%g/10"}


def grade(asked: str) -> float:
    found, reference = _RESPONSE.search(asked), _REFERENCE.search(asked)
    assert found is not None, asked
    response = found[2]
    if reference is not None:
        return 10.0 * (response.strip() == reference[1])
    return round(10 * sum(c.isdigit() for c in response) / max(len(response), 1), 2)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        #: What the next requests get, in order: a status, ``broken``, ``empty``, ``cut``, ``mute``, ``hang``.
        self.faults: list[Any] = []
        self.seconds, self.die_after, self.form, self.key = 0.0, -1, "json", ""
        self.gather = 0  # answers wait until so many requests were open at once
        self.noisy = False
        self.seen: list[dict[str, Any]] = []
        self.arrived: list[float] = []
        self.open = self.most = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        server = self.server
        if self.path == "/stats":
            return self._send(200, {"seen": server.seen, "most": server.most, "arrived": server.arrived})
        if self.path == "/v1/models":
            return self._send(200 if self._allowed() else 401, {"data": []})
        return self._send(404, {})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        if self.path == "/tell":
            vars(server).update(body)
            return self._send(200, {})
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": f"no {self.path}"})
        if not self._allowed():
            return self._send(401, {"error": "the key is missing or wrong"})
        with server.lock:
            server.open += 1
            server.most = max(server.most, server.open)
            server.seen.append(body)
            server.arrived.append(time.monotonic())
            number = len(server.seen)
            fault = server.faults.pop(0) if server.faults else None
        if server.die_after >= 0 and number > server.die_after:
            os._exit(1)
        try:
            self._answer(body, fault, number)
        finally:
            with server.lock:
                server.open -= 1
        return None

    def _answer(self, body: dict[str, Any], fault: Any, number: int) -> None:
        time.sleep(3600 if fault == "hang" else self.server.seconds)
        for _ in range(400):
            if self.server.most >= self.server.gather:
                break
            time.sleep(0.01)
        if isinstance(fault, int):
            return self._send(fault, {"error": "a failure"}, {"Retry-After": "0.1"})
        if fault == "broken":
            return self._send(200, None)
        asked = body["messages"][-1]["content"]
        score = number % 11 if self.server.noisy else grade(asked)
        text = f"The response says {asked[-60:]!r}.\n" + _FORMS[self.server.form] % score
        text = {"mute": "I cannot say.", "empty": None}.get(fault, text)
        ended = "length" if fault == "cut" else "stop"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
        return self._send(200, {"object": "chat.completion", "choices": [choice]})

    def _allowed(self) -> bool:
        return not self.server.key or self.headers.get("Authorization") == f"Bearer {self.server.key}"

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = b'{"choices": [' if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


class JudgeServer:
    """The server's process, as a test sees it.

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def tell(self, **settings: Any) -> None:
        """Change attributes of the server."""
        httpx.post(f"{self.url}/tell", json=settings, timeout=10).raise_for_status()

    def stats(self) -> dict[str, Any]:
        """What it has seen: the bodies of the requests, when they arrived, and the most that were open."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/stats", timeout=10).json()
        return answer

    def asked(self) -> int:
        """Number of requests."""
        return len(self.stats()["seen"])

    def close(self) -> None:
        """Kill it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


if __name__ == "__main__":
    one = _Server(int(sys.argv[1]))
    print(one.server_port, flush=True)
    one.serve_forever(0.05)
