"""The application behind every call of a server, without a server; needs no vLLM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ecrl.engines.base import Sampling
from ecrl.engines.vllm import asgi
from ecrl.engines.vllm.api import _sampling
from ecrl.engines.vllm.asgi import Application, Refusal
from ecrl.engines.vllm.sampling_params import completion_params
from ecrl.engines.vllm.wire import pack_floats, pack_ints, unpack_floats, unpack_ints

SECRET = "the-secret-of-the-server"
GOOD = {b"authorization": f"Bearer {SECRET}".encode()}


class Calls:
    """Handlers that note that they were called."""

    def __init__(self) -> None:
        self.made: list[Mapping[str, Any]] = []
        self.cancelled = False

    async def echo(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.made.append(body)
        return dict(body)

    async def fail(self, body: Mapping[str, Any]) -> dict[str, Any]:
        raise RuntimeError("first line\nsecond line")

    async def wait(self, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return {}


def ask(
    calls: Calls,
    path: str = "/echo",
    body: bytes | None = b"{}",
    headers: Mapping[bytes, bytes] = GOOD,
    method: str = "POST",
) -> tuple[int, dict[str, Any]]:
    """Ask the application; without a body the client hangs up."""
    sent: list[dict[str, Any]] = []
    pending = [{"type": "http.request", "body": b"{}" if body is None else body}]

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        if body is None:
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = Application(SECRET, {"/echo": calls.echo, "/fail": calls.fail, "/wait": calls.wait})
    scope = {"type": "http", "path": path, "method": method, "headers": list(headers.items())}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize("path", ["/echo", "/fail", "/wait", "/", "/status", "/health", "/docs"])
@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        SECRET.encode(),
        b"Bearer " + SECRET.encode() + b"x",
        b"Bearer \xff\xfe",
    ],
)
def test_without_the_secret_every_path_is_401(path: str, header: bytes | None) -> None:
    calls = Calls()
    for method in ("POST", "GET", "OPTIONS"):
        headers = {} if header is None else {b"authorization": header}
        # What follows the header is not even read.
        assert ask(calls, path, b"[" * 10**6, headers, method)[0] == 401
    assert not calls.made


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 10**6, b"1" * 10_000, b'"x"', b"null"])
def test_what_is_no_object_is_400(body: bytes) -> None:
    calls = Calls()
    status, answer = ask(calls, body=body)
    assert status == 400 and "\n" not in answer["error"] and not calls.made


def test_other_paths_and_methods_are_404() -> None:
    for path, method in (("/", "POST"), ("/echo", "GET"), ("/collective_rpc", "POST"), ("/echo/", "POST")):
        assert ask(Calls(), path, method=method)[0] == 404


def test_a_huge_body_is_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_MOST", 1000)
    assert ask(Calls(), body=b"{" + b" " * 2000)[0] == 413
    assert ask(Calls(), headers={**GOOD, b"content-length": b"9" * 400})[0] == 413


def test_an_error_is_one_line_and_the_server_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(Calls(), "/fail") == (500, {"error": "RuntimeError: first line"})
    assert capsys.readouterr().err == "ecrl serve: /fail failed: RuntimeError: first line\n"
    assert ask(Calls(), body=b'{"a": 1}') == (200, {"a": 1})


def test_a_client_that_hangs_up_cancels_its_call() -> None:
    calls = Calls()
    assert ask(calls, "/wait", body=None)[0] == 499
    assert calls.cancelled


def test_arrays_are_what_they_were() -> None:
    ids, logprobs = [0, 151_642, 2**31 - 1], [-0.125, -17.5, float("-inf")]
    assert unpack_ints(pack_ints(ids)) == ids and unpack_floats(pack_floats(logprobs)) == logprobs
    assert len(pack_ints(range(3000)) + pack_floats([0.0] * 3000)) < 11 * 3000
    for text in ("%", "AAA=", "AAAA"):
        with pytest.raises(ValueError):
            unpack_ints(text)


def test_sampling_takes_what_the_run_sends_and_nothing_else() -> None:
    params = completion_params(Sampling(0.7, 1.0, 9), key=2**64 - 1, eos_ids=[1, 2])
    assert _sampling(params) == params
    for name, value in [
        ("extra_args", {"x": 1}),
        ("logits_processors", ["os.system"]),
        ("structured_outputs", {"regex": "(a+)+$"}),
        ("n", 10**6),
        ("stop", ["x"]),
        ("prompt_logprobs", 5),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("max_tokens", None),
        ("seed", 1.5),
        ("stop_token_ids", [1, "2"]),
        ("stop_token_ids", [2**70]),
    ]:
        with pytest.raises(Refusal, match=name):
            _sampling({**params, name: value})
