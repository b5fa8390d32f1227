"""Sends weights from one process to several, each of which has proved that it knows the secret.

Names and shapes go over a TCP connection to each receiver. So do the tensors, unless all ends are on GPUs:
then NCCL broadcasts them, in a group of its own. Small tensors travel together. A receiver that fails closes
its connection, so the sender knows at once, and the others go on (with NCCL they have to start again).
"""

from __future__ import annotations

import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import prod
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor

from ecrl.engines.vllm.nccl_group import NCCLGroup
from ecrl.engines.vllm.shared_secret import proof

_CHALLENGE = 32  # bytes
_HELLO = struct.Struct(">I?32s")  # rank, whether it is on a GPU, proof
_LENGTH = struct.Struct(">I")
_LONGEST = 1 << 16  # bytes of a header
#: Tensors are sent together up to so many bytes, and so many that their names fit in a header.
BUCKET, _TENSORS = 1 << 26, 256
_INTRODUCTION = 10.0  # seconds for one who connects to show that it has the secret
_WAITING = 64  # the most who may be introducing themselves at a time


class ChannelError(Exception):
    """The other end is gone, silent, or not one of ours."""


class Sender:
    """The trainer's end.

    Args:
        address: address of this machine to listen on.
        size: number of processes, with the sender.
        device: device of the tensors.
        token: the secret.
        timeout: seconds after which a silent receiver counts as gone.

    Attributes:
        port: port to connect to.
        lost: ranks of receivers that are gone.

    Raises:
        OSError: the address cannot be listened on.
    """

    def __init__(self, address: str, size: int, device: torch.device, token: str, timeout: float) -> None:
        self.device, self.lost = device, set[int]()
        self._size, self._token, self._timeout = size, token, timeout
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family, backlog=_WAITING)
        self._listener.settimeout(0.2)
        self.port: int = self._listener.getsockname()[1]
        self._receivers: dict[int, socket.socket] = {}
        self._group: NCCLGroup | None = None

    def open(self, timeout: float, failed: Callable[[], bool]) -> None:
        """Wait until all receivers are there; nobody can connect afterwards.

        Args:
            timeout: seconds.
            failed: asked in between whether one will not come.

        Raises:
            ChannelError: one did not come.
        """
        arrived: SimpleQueue[tuple[int, bool, socket.socket]] = SimpleQueue()
        waiting = threading.Semaphore(_WAITING)
        on_gpu: list[bool] = [self.device.type == "cuda"]
        end = time.monotonic() + timeout
        with self._listener:
            while len(self._receivers) < self._size - 1:
                if failed() or time.monotonic() > end:
                    self.close()
                    raise ChannelError("not all servers connected")
                with suppress(TimeoutError):
                    connection, _ = self._listener.accept()
                    if waiting.acquire(blocking=False):
                        threading.Thread(
                            target=self._introduce, args=(connection, arrived, waiting), daemon=True
                        ).start()
                    else:
                        connection.close()
                with suppress(Empty):
                    rank, gpu, connection = arrived.get_nowait()
                    self._receivers[rank] = connection
                    on_gpu.append(gpu)
        self._say({"nccl": all(on_gpu)})
        if all(on_gpu):
            self._group = NCCLGroup(0, self._size, self.device, self._timeout)
            self._group.open(lambda unique_id: self._say({"id": unique_id.hex()}))

    def _introduce(
        self,
        connection: socket.socket,
        arrived: SimpleQueue[tuple[int, bool, socket.socket]],
        waiting: threading.Semaphore,
    ) -> None:
        """Admit one who answers a fresh challenge with the secret; hang up on anybody else."""
        try:
            connection.settimeout(_INTRODUCTION)
            challenge = secrets.token_bytes(_CHALLENGE)
            connection.sendall(challenge)
            rank, gpu, answer = _HELLO.unpack(_read(connection, _HELLO.size))
            known = secrets.compare_digest(answer, proof(self._token, challenge, rank))
            if not known or not 0 < rank < self._size or rank in self._receivers:
                raise ChannelError("not one of ours")
            _prepare(connection, self._timeout)
            arrived.put((rank, gpu, connection))
        except (OSError, ChannelError, struct.error):
            connection.close()
        finally:
            waiting.release()

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Send weights to all who are left; iterates to the end even if none is."""
        for bucket in buckets(weights):
            if self._ready():
                tensors = [(name, list(tensor.shape)) for name, tensor in bucket]
                self._say({"tensors": tensors, "dtype": str(bucket[0][1].dtype).removeprefix("torch.")})
                raw = [tensor.to(self.device).contiguous().view(-1).view(torch.uint8) for _, tensor in bucket]
                self._send_bytes(raw[0] if len(raw) == 1 else torch.cat(raw))
        self._say({"end": True})

    def drop(self, rank: int) -> None:
        """Give a receiver up; may be called in another thread, which wakes the sender."""
        self.lost.add(rank)
        with suppress(OSError, KeyError):
            self._receivers[rank].shutdown(socket.SHUT_RDWR)
        if self._group is not None:
            self._group.abort()

    def close(self) -> None:
        """Hang up."""
        for connection in self._receivers.values():
            connection.close()
        if self._group is not None:
            self._group.abort()

    def _ready(self) -> bool:
        """Whether anybody is left to send to; with NCCL all must be, and a whole group."""
        if self._group is not None and self.lost:
            self.lost.update(self._receivers)
        return len(self.lost) < len(self._receivers)

    def _send_bytes(self, raw: Tensor) -> None:
        if self._group is None:
            data: Any = raw.cpu().numpy()
            self._to_all(lambda connection: connection.sendall(data))
        elif not self.lost:
            try:
                self._group.broadcast(raw)
            except RuntimeError:
                self.lost.update(self._receivers)

    def _say(self, header: dict[str, Any]) -> None:
        data = json.dumps(header).encode()
        self._to_all(lambda connection: connection.sendall(_LENGTH.pack(len(data)) + data))

    def _to_all(self, act: Callable[[socket.socket], None]) -> None:
        for rank, connection in self._receivers.items():
            if rank not in self.lost:
                try:
                    act(connection)
                except OSError:
                    self.lost.add(rank)
                    connection.close()


class Receiver:
    """A server's end.

    Args:
        address: of the sender.
        port: of the sender.
        rank: 1 and up.
        size: number of processes, with the sender.
        device: device of the tensors.
        token: the secret.
        timeout: seconds after which a silent sender counts as gone.

    Raises:
        ChannelError: the sender is not there, or does not accept the secret.
    """

    def __init__(
        self,
        address: str,
        port: int,
        rank: int,
        size: int,
        device: torch.device,
        token: str,
        timeout: float,
    ) -> None:
        self.device = device
        self._group: NCCLGroup | None = None
        try:
            self._connection = socket.create_connection((address, port), timeout=_INTRODUCTION)
        except OSError as error:
            raise ChannelError(f"{address}:{port} cannot be reached ({error})") from None
        challenge = _read(self._connection, _CHALLENGE)
        self._connection.sendall(_HELLO.pack(rank, device.type == "cuda", proof(token, challenge, rank)))
        _prepare(self._connection, timeout)
        if self._header()["nccl"]:
            self._group = NCCLGroup(rank, size, device, timeout)
            self._group.join(bytes.fromhex(self._header()["id"]))

    def receive(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights that the sender sends.

        Raises:
            ChannelError: the sender is gone.
            RuntimeError: NCCL failed.
        """
        while "end" not in (header := self._header()):
            dtype: torch.dtype = getattr(torch, header["dtype"])
            at = self.device if self._group is not None else torch.device("cpu")
            sizes = [prod(shape) * dtype.itemsize for _, shape in header["tensors"]]
            raw = torch.empty(sum(sizes), dtype=torch.uint8, device=at)
            if self._group is not None:
                self._group.broadcast(raw)
            else:
                into: Any = raw.numpy()
                _fill(self._connection, memoryview(into))
            parts = torch.split(raw.to(self.device), sizes)
            for (name, shape), part in zip(header["tensors"], parts, strict=True):
                yield name, part.view(dtype).view(shape)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
        if self._group is not None:
            self._group.abort()

    def _header(self) -> dict[str, Any]:
        (length,) = _LENGTH.unpack(_read(self._connection, _LENGTH.size))
        if length > _LONGEST:
            raise ChannelError("the sender talks nonsense")
        header: dict[str, Any] = json.loads(_read(self._connection, length))
        return header


def buckets(weights: Iterable[tuple[str, Tensor]]) -> Iterator[Sequence[tuple[str, Tensor]]]:
    """Put neighbours of one type together, up to ``BUCKET`` bytes; a larger tensor is alone."""
    bucket: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in weights:
        fits = size + tensor.nbytes <= BUCKET and len(bucket) < _TENSORS
        if bucket and not (fits and tensor.dtype == bucket[0][1].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor))
        size += tensor.nbytes
    if bucket:
        yield bucket


def _prepare(connection: socket.socket, timeout: float) -> None:
    """Let silence of the peer, or of its machine, end the connection."""
    connection.settimeout(timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every platform
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    _fill(connection, memoryview(data))
    return bytes(data)


def _fill(connection: socket.socket, into: memoryview) -> None:
    try:
        while into:
            count = connection.recv_into(into)
            if count == 0:
                raise ChannelError("the other end hung up")
            into = into[count:]
    except OSError as error:
        raise ChannelError(f"the other end is silent or gone ({error})") from None
