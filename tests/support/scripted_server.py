"""A server that answers as `ecrl serve` does, over real HTTP, and can be told to fail in many ways."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ecrl.engines.vllm.shared_secret import presents
from ecrl.engines.vllm.wire import pack_floats, pack_ints

TOKEN = "the-secret-of-these-tests"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that hangs up is part of the tests."""


class ScriptedServer:
    """Draws the key of each request as its one token.

    Attributes:
        errors: statuses with which the next requests fail.
        refuse: keys that it refuses as wrong.
        broken: keys that always fail.
        hold: keys that it never answers.
        seconds: for one completion.
        asked: how many completions were asked for.
        most: the most that were open at once.
        keys: in order of arrival.
        processed: tokens so far; stands still if ``stuck``.
    """

    def __init__(self, version: int = 0) -> None:
        self.boot, self.version = "first", version
        self.errors: list[int] = []
        self.refuse: set[int] = set()
        self.broken: set[int] = set()
        self.hold: set[int] = set()
        self.seconds, self.stuck = 0.0, False
        self.asked = self.open = self.most = self.processed = 0
        self.keys: list[int] = []
        self.max_num_seqs, self.max_model_len = 64, 128
        self._lock = threading.Lock()
        self._ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                status, answer = outer.answer(self.path, self.headers.get("Authorization", ""), body)
                if outer._ended.is_set():
                    self.close_connection = True  # it died
                    return
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, path: str, authorization: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not presents(authorization, TOKEN):
            return 401, {"error": "the secret is missing or wrong"}
        if path == "/status":
            return 200, {
                "vllm": "0.32.0",
                "boot": self.boot,
                "version": self.version,
                "processed": self.processed,
                "workers": 1,
                "max_model_len": self.max_model_len,
                "max_num_seqs": self.max_num_seqs,
                "adapter_rank": 0,
                "adaptable": [],
            }
        return self._generate(body["sampling"]["seed"])

    def _generate(self, key: int) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked += 1
            self.open += 1
            self.most = max(self.most, self.open)
            self.keys.append(key)
            error = self.errors.pop(0) if self.errors else 0
        try:
            if error or key in self.broken:
                return error or 500, {"error": "it failed"}
            if key in self.refuse:
                return 400, {"error": "a prompt like this"}
            while key in self.hold and not self._ended.is_set():
                time.sleep(0.02)
                self.processed += not self.stuck
            time.sleep(self.seconds)
            return 200, {
                "tokens": pack_ints([key]),
                "logprobs": pack_floats([-0.5]),
                "finish": "stop",
                "versions": [[self.version, 1]],
            }
        finally:
            with self._lock:
                self.open -= 1
                self.processed += not self.stuck

    def close(self) -> None:
        """Die."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
