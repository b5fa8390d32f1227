"""Asks an OpenAI-compatible server for verdicts: a bounded number at once, and again where it fails."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ecrl.envs.async_steps import release_at_end
from ecrl.envs.judge.verdicts import Verdicts
from ecrl.errors import EcrlError, UsageError
from ecrl.hashing import uniform

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds between two tries
_PROBING = 10.0  # seconds in which the server must answer before a run
_AGAIN = (408, 409, 425, 429)  # statuses that may pass; those of 500 and above may, too
_REFUSED = (401, 403, 404)  # statuses that mean wrong settings


class JudgeError(EcrlError):
    """The server gave no verdict on a response."""


class _TryAgainError(Exception):
    """A request failed in a way that may pass.

    Attributes:
        pause: seconds that the server asks to wait.
    """

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


@dataclass(frozen=True)
class Server:
    """A server, and how it is asked.

    Attributes:
        url: address of its API, ending in ``/v1``.
        model: name of the model that judges.
        key_env: environment variable that holds the key; None for a server without keys.
        max_tokens: longest reply.
        timeout: seconds for one request.
        retries: requests after a failed one.
        in_flight: most requests at once, of one process.
        cache: file of verdicts.
    """

    url: str
    model: str
    key_env: str | None
    max_tokens: int
    timeout: float
    retries: int
    in_flight: int
    cache: Path

    def headers(self) -> dict[str, str]:
        """Return what authorises a request.

        Raises:
            UsageError: the variable is not set.
        """
        if self.key_env is None:
            return {}
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise UsageError(f"api_key_env={self.key_env!r} names no environment variable that is set.")
        return {"Authorization": f"Bearer {key}"}

    def probe(self) -> None:
        """Look whether it answers.

        Raises:
            UsageError: it does not, or refuses the key.
        """
        try:
            answer = httpx.get(f"{self.url}/models", headers=self.headers(), timeout=_PROBING)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise UsageError(f"url={self.url!r} does not answer: {_said(error)}.") from None
        if answer.status_code in (401, 403):
            raise UsageError(
                f"url={self.url!r} refuses the key: {_body(answer)}. Set api_key_env to its variable."
            )


@dataclass
class JudgeStats:
    """Counts of this process, since it began.

    Attributes:
        verdicts: verdicts that were given, cached ones too.
        cached: those of them that cost no request.
        requests: requests that were sent.
        seconds: that all requests together took.
        retries: requests that were sent because another had failed.
        failures: verdicts that could not be had.
    """

    verdicts: int = 0
    cached: int = 0
    requests: int = 0
    seconds: float = 0.0
    retries: int = 0
    failures: int = 0


#: The counts of this process; only its event loop changes them.
stats = JudgeStats()


@dataclass
class Judge:
    """A server's client in one event loop."""

    server: Server
    _asked: dict[str, asyncio.Task[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        server = self.server
        limits = httpx.Limits(max_connections=server.in_flight, max_keepalive_connections=server.in_flight)
        self._client = httpx.AsyncClient(headers=server.headers(), timeout=server.timeout, limits=limits)
        self._slots = asyncio.Semaphore(server.in_flight)
        self._verdicts = Verdicts(server.cache)

    async def score(self, messages: list[dict[str, str]], read: Callable[[str], float]) -> float:
        """Return the verdict on a conversation; who asks the same at the same time gets the same.

        Args:
            messages: the conversation.
            read: finds the verdict in a reply, or raises ValueError.

        Raises:
            JudgeError: there is none after all tries.
            UsageError: the server refuses to be asked, or the cache cannot be used.
        """
        server = self.server
        body = {
            "model": server.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": server.max_tokens,
        }
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        task = self._asked.get(key)
        stats.verdicts += 1
        stats.cached += task is not None
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._score(key, body, read))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Close connections and cache."""
        await self._client.aclose()
        await self._verdicts.close()

    def _forget(self, key: str, done: asyncio.Task[float]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # heard, also where nobody waits any more

    async def _score(self, key: str, body: dict[str, Any], read: Callable[[str], float]) -> float:
        reply = await self._verdicts.get(key)
        if reply is not None:
            stats.cached += 1
            return read(reply)
        try:
            reply = await self._reply(key, body, read)
        except JudgeError:
            stats.failures += 1
            raise
        return read(await self._verdicts.put(key, reply))

    async def _reply(self, key: str, body: dict[str, Any], read: Callable[[str], float]) -> str:
        """Ask until a reply holds a verdict."""
        why = ""
        for attempt in range(1 + self.server.retries):
            try:
                async with self._slots:
                    reply = await self._ask(body)
                _check(read, reply)
                return reply
            except _TryAgainError as error:
                why = str(error)
                pause = max(_pause(key, attempt), error.pause)
            if attempt < self.server.retries:
                stats.retries += 1
                await asyncio.sleep(pause)
        tries = 1 + self.server.retries
        raise JudgeError(f"The judge at {self.server.url} gave no verdict in {tries} tries; last: {why}.")

    async def _ask(self, body: dict[str, Any]) -> str:
        """Send one request; return the reply's text."""
        stats.requests += 1
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(self.server.timeout):  # httpx's own is for each read
                answer = await self._client.post(f"{self.server.url}/chat/completions", json=body)
        except TimeoutError:
            raise _TryAgainError(f"no answer within {self.server.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise _TryAgainError(_said(error)) from None
        finally:
            stats.seconds += time.perf_counter() - begin
        status = answer.status_code
        if status in _REFUSED:
            raise UsageError(
                f"The judge at {self.server.url} refuses model={self.server.model!r}: {_body(answer)}. "
                "Set url, model and api_key_env as the server wants them."
            )
        if status in _AGAIN or status >= 500:
            raise _TryAgainError(_body(answer), _asked_pause(answer))
        if status != 200:
            raise JudgeError(f"The judge at {self.server.url} cannot grade this response: {_body(answer)}.")
        return _text(answer)


_open: dict[tuple[asyncio.AbstractEventLoop, Server], Judge] = {}


def judge_of(server: Server) -> Judge:
    """Return the client of a server in the running event loop, which is made at the first call."""
    key = asyncio.get_running_loop(), server
    if key not in _open:
        judge = _open[key] = Judge(server)

        async def release() -> None:
            del _open[key]
            await judge.close()

        release_at_end(release)
    return _open[key]


def _check(read: Callable[[str], float], reply: str) -> None:
    try:
        read(reply)
    except ValueError as error:
        raise _TryAgainError(str(error)) from None


def _text(answer: httpx.Response) -> str:
    """Read the reply out of the server's answer."""
    try:
        choice = answer.json()["choices"][0]
        text, ended = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _TryAgainError(f"no chat completion: {_body(answer)}") from None
    if ended == "length":
        raise _TryAgainError("its reply was cut off: raise max_tokens")
    if not isinstance(text, str):
        raise _TryAgainError(f"a reply without text: {_body(answer)}")
    return text


def _pause(key: str, attempt: int) -> float:
    """Seconds before the next try: doubled each time, times a factor from 0.5 to 1.5 that the key decides."""
    spread = 0.5 + float(uniform(int(key[:15], 16), attempt))
    return min(_FIRST_PAUSE * 2.0**attempt * spread, _LONGEST_PAUSE)


def _asked_pause(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait; 0 if it does not, or gives a date."""
    try:
        return min(max(float(answer.headers.get("Retry-After", 0)), 0.0), _LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _body(answer: httpx.Response) -> str:
    """Say in a line what a server answered."""
    return f"HTTP {answer.status_code} {' '.join(answer.text.split())[:200]!r}"


def _said(error: Exception) -> str:
    return ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split())[:200])))
