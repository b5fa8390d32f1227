"""A small HTTP application: JSON in and out, fixed routes, and nothing for who does not have the secret."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from ecrl.engines.vllm.shared_secret import presents

Body = Mapping[str, Any]
Handler = Callable[[Body], Awaitable[dict[str, Any]]]

_MOST = 64 << 20  # bytes of a request


class Refusal(Exception):
    """The request is wrong: it would be refused by any server at any time.

    Args:
        status: HTTP status.
        reason: what is wrong.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Application:
    """An ASGI application.

    Whoever does not present the secret gets 401 for every path, before anything of the request is read. A
    client that hangs up cancels what it asked for.

    Args:
        token: the secret.
        routes: handlers by path; each is called by POST, with a JSON object.
    """

    def __init__(self, token: str, routes: Mapping[str, Handler]) -> None:
        self._token = token
        self._routes = routes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification; answers HTTP only."""
        if scope["type"] != "http":
            return  # a websocket is then refused
        try:
            answer = await self._answer(scope, receive)
            status = 200
        except Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal)}
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The one place where all errors end: the client learns of it, and the server goes on.
            status, answer = 500, {"error": _line(error)}
            print(f"ecrl serve: {scope['path']} failed: {answer['error']}", file=sys.stderr, flush=True)
        data = json.dumps(answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
        if status in (401, 413):
            headers.append((b"connection", b"close"))  # what else was sent is not read
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    async def _answer(self, scope: Any, receive: Any) -> dict[str, Any]:
        headers = dict(scope["headers"])
        if not presents(headers.get(b"authorization", b"").decode("latin-1"), self._token):
            raise Refusal(401, "the secret is missing or wrong")
        handler = self._routes.get(scope["path"])
        if handler is None or scope["method"] != "POST":
            raise Refusal(404, "there is no such call")
        body = _parse(await _read(headers, receive))
        work = asyncio.ensure_future(handler(body))
        gone = asyncio.ensure_future(_hung_up(receive))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Refusal(499, "the client hung up")
            return work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work


async def _read(headers: Mapping[bytes, bytes], receive: Any) -> bytes:
    """Read a body of bounded length."""
    stated = headers.get(b"content-length", b"0")
    data = bytearray()
    more = True
    if stated.isdigit() and int(stated[:20]) > _MOST:
        raise Refusal(413, f"a request may have {_MOST} bytes")
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(499, "the client hung up")
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > _MOST:
            raise Refusal(413, f"a request may have {_MOST} bytes")
    return bytes(data)


async def _hung_up(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _parse(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the request is not JSON: {_line(error)}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the request must be a JSON object")
    return body


def _line(error: BaseException) -> str:
    """Return an error's type and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
