"""Brings weights to all servers that answer, and has each prove what it holds; the first process's work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeVar

import httpx
import torch
from torch import Tensor

from ecrl.engines.checksum import Receipt
from ecrl.engines.vllm.http_thread import HTTPThread
from ecrl.engines.vllm.own_address import own_address
from ecrl.engines.vllm.replica import QUICK, Replica, Status, cause
from ecrl.engines.vllm.weight_channel import ChannelError, Sender
from ecrl.errors import EcrlError
from ecrl.policy.lora import AdapterKind

T = TypeVar("T")

CONNECT = 120.0  # seconds for all servers to connect
STALL = 60.0  # seconds without room for one more byte after which a receiver counts as gone
_ABSENT = 1.0  # seconds for a look at a server that was not there the last time
_PULSE = 2.0  # seconds between two looks at those that receive
_MISSES = 3  # looks in a row without an answer after which one counts as gone


class WeightSync:
    """The channel to the servers, and who is on it.

    Args:
        replicas: all servers.
        http: the thread that talks to them.
        device: device of the weights.
        token: the secret.
        timeout: seconds for a call that does work.
        say: shows a line to the user.

    Attributes:
        members: the servers on the channel, with their last status.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        http: HTTPThread,
        device: torch.device,
        token: str,
        timeout: float,
        say: Callable[[str], None],
    ) -> None:
        self.members: dict[Replica, Status] = {}
        self._replicas, self._http, self._device = replicas, http, device
        self._token, self._timeout, self._say = token, timeout, say
        self._ranks: dict[Replica, range] = {}
        self._sender: Sender | None = None
        self._absent: set[Replica] = set()
        self._merging = False

    def all_there(self) -> bool:
        """Whether every server took part in the last sync, still answers, and was not restarted."""
        found = self._look()
        return len(found) == len(self._replicas) and _same(found, self.members)

    def connect(self) -> bool:
        """Open a channel to all servers that answer, unless it is open; return whether it was opened.

        Raises:
            EcrlError: no server answers, or none can connect.
        """
        found = self._look()
        if self._sender is not None and _same(found, self.members):
            self.members = found
            return False
        while found:
            self.close()
            failed = self._open(found)
            if not failed:
                return True
            found = {replica: status for replica, status in found.items() if replica not in failed}
        urls = ", ".join(replica.url for replica in self._replicas)
        raise EcrlError(
            f"No vLLM server answers any more ({urls}); start them again and continue from the last "
            "checkpoint with resume=RUN_DIR."
        )

    def takes(self, adapters: AdapterKind) -> bool:
        """Whether all members take adapters of this kind; says once who does not."""
        for replica, status in self.members.items():
            if (reason := cannot_take(status, adapters)) is not None:
                if not self._merging:
                    self._say(
                        f"adapters are merged into whole weights at each sync, because the server at "
                        f"{replica.url} {reason}."
                    )
                self._merging = True
                return False
        return True

    def send(self, weights: Iterable[tuple[str, Tensor]], version: int) -> bool:
        """Send the weights to all members; iterates to the end. Returns whether one received them all."""
        sender = self._sender
        if sender is None:
            raise EcrlError("Weights were sent before the channel to the servers was open.")
        calls = self._start(self.members, lambda r: r.receive(self._http.client, version))
        with self._watching(sender, calls):
            sender.send(weights)
            failures = {replica: _failure(call) for replica, call in calls.items()}
        for replica, reason in failures.items():
            if reason is not None:
                self._leave_out(replica, f"it did not receive the weights ({reason})")
        return bool(self.members)

    def receipts(self, shapes: Mapping[str, list[int]]) -> dict[Replica, list[Receipt]]:
        """Ask all members what they hold; those that fail are left out."""
        return self._all(lambda replica: replica.receipts(self._http.client, shapes))

    def accept(self, version: int, token_ids: list[int]) -> dict[Replica, list[float]]:
        """Have all members use their weights; return each one's log-probs of a probe."""

        async def accept(replica: Replica) -> list[float]:
            await replica.accept(self._http.client, version)
            return await replica.probe(self._http.client, token_ids)

        return self._all(accept)

    def close(self) -> None:
        """Hang up."""
        if self._sender is not None:
            self._sender.close()
        self._sender, self.members = None, {}

    def _look(self) -> dict[Replica, Status]:
        """Return the servers that answer; one that did not the last time gets less time."""

        async def look(replica: Replica) -> Status:
            return await replica.status(self._http.client, _ABSENT if replica in self._absent else QUICK)

        calls = self._start(self._replicas, look)
        failures = {replica: _failure(call) for replica, call in calls.items()}
        for replica, reason in failures.items():
            if reason is not None and replica not in self._absent:
                self._say(
                    f"the server at {replica.url} does not answer ({reason}); weights go to the others."
                )
        self._absent = {replica for replica, reason in failures.items() if reason is not None}
        return {replica: call.result() for replica, call in calls.items() if failures[replica] is None}

    def _open(self, found: Mapping[Replica, Status]) -> set[Replica]:
        """Open a channel to these servers; return those that could not connect."""
        *firsts, size = accumulate((status.workers for status in found.values()), initial=1)
        limit = min(self._timeout, CONNECT)
        try:
            address = own_address(replica.host for replica in found)
            sender = Sender(address, size, self._device, self._token, min(self._timeout, STALL))
        except OSError as error:
            raise EcrlError(f"No channel for weights could be opened: {error}.") from None
        ranks = {
            r: range(first, first + s.workers) for (r, s), first in zip(found.items(), firsts, strict=True)
        }
        calls = self._start(
            found, lambda r: r.join(self._http.client, address, sender.port, ranks[r].start, size)
        )
        try:
            sender.open(limit, lambda: any(call.done() and call.exception() for call in calls.values()))
        except (ChannelError, RuntimeError):
            sender.close()
            ended = {replica: _failure(call) for replica, call in calls.items() if call.done()}
            failed = {replica: reason for replica, reason in ended.items() if reason is not None}
            for call in calls.values():
                call.cancel()
            failed = failed or dict.fromkeys(found.keys() - ended.keys(), f"not within {limit:g} s")
            for replica, reason in failed.items():
                self._say(
                    f"the server at {replica.url} cannot connect to this run for its weights ({reason})."
                )
            return set(failed) or set(found)
        self._sender, self._ranks, self.members = sender, ranks, dict(found)
        return set()

    @contextmanager
    def _watching(self, sender: Sender, calls: Mapping[Replica, Future[None]]) -> Iterator[None]:
        """Give up, within the block, those members that answer no more."""

        async def watch(replica: Replica) -> None:
            misses, call = 0, calls[replica]
            while misses < _MISSES and not (call.done() and call.exception()):
                await asyncio.sleep(_PULSE)
                try:
                    await replica.status(self._http.client)
                    misses = 0
                except httpx.HTTPError:
                    misses += 1
            for rank in self._ranks[replica]:
                sender.drop(rank)
            call.cancel()

        watches = self._start(calls, watch)
        try:
            yield
        finally:
            for watching in watches.values():
                watching.cancel()

    def _all(self, ask: Callable[[Replica], Coroutine[Any, Any, T]]) -> dict[Replica, T]:
        """Ask all members side by side; those that fail are left out."""
        calls = self._start(self.members, ask)
        for replica, call in calls.items():
            if (reason := _failure(call)) is not None:
                self._leave_out(replica, reason)
        return {replica: calls[replica].result() for replica in self.members}

    def _leave_out(self, replica: Replica, reason: str) -> None:
        """Go on without a member; the next sync opens a new channel, and looks for it."""
        self.members = {r: s for r, s in self.members.items() if r is not replica}
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        self._say(
            f"the server at {replica.url} is left out: {reason}. The next weight sync looks for it again."
        )

    def _start(
        self, replicas: Iterable[Replica], ask: Callable[[Replica], Coroutine[Any, Any, T]]
    ) -> dict[Replica, Future[T]]:
        return {replica: self._http.start(ask(replica)) for replica in replicas}


def cannot_take(status: Status, adapters: AdapterKind) -> str | None:
    """Say why a server cannot take adapters; None if it can.

    Args:
        status: what the server says of itself.
        adapters: the run's.
    """
    if status.adapter_rank < adapters.rank:
        return f"was not started for them (`ecrl serve … model.lora.r={adapters.rank}`)"
    if missing := adapters.layers - set(status.adaptable):
        return f"cannot have them at {', '.join(sorted(missing))}"
    return None


def _same(found: Mapping[Replica, Status], members: Mapping[Replica, Status]) -> bool:
    """Whether these are the same processes."""
    return {r: s.boot for r, s in found.items()} == {r: s.boot for r, s in members.items()}


def _failure(call: Future[Any]) -> str | None:
    """Wait for a call, and say why it failed; None if it did not. An error that is a bug here is raised."""
    try:
        error = call.exception()
    except CancelledError:
        return "it does not answer"
    if error is not None and not isinstance(error, httpx.HTTPError):
        raise error
    return None if error is None else cause(error)
