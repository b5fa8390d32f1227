"""Sends weights from one process to several: tensors by broadcast, names and shapes through a store.

The processes need not share a default process group. NCCL carries the tensors between GPUs, and gloo
between CPUs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, TCPStore

_END = b"end"


class Channel:
    """One process's end of the channel; all processes must open theirs at the same time.

    Args:
        address: host name or address of the sender.
        port: port of the sender; 0 lets the sender take a free port.
        rank: 0 for the sender, 1 and up for receivers.
        size: number of processes.
        device: device of the tensors.
        timeout: seconds after which a silent peer is an error.
    """

    def __init__(
        self, address: str, port: int, rank: int, size: int, device: torch.device, timeout: float
    ) -> None:
        self.device = device
        self._limit = timedelta(seconds=timeout)
        self._store: Any = TCPStore(
            address, port, is_master=rank == 0, wait_for_workers=False, timeout=self._limit
        )
        self.port: int = self._store.port
        self._rank, self._size = rank, size
        self._group: Any = None
        self._round = 0

    def open(self) -> None:
        """Connect with the other processes.

        Raises:
            RuntimeError: one of them did not connect in time.
        """
        make: Any = dist.ProcessGroupGloo
        limit: Any = self._limit
        if self.device.type == "cuda":
            make, limit = dist.ProcessGroupNCCL, dist.ProcessGroupNCCL.Options()
            limit._timeout = self._limit
        self._group = make(PrefixStore("group", self._store), self._rank, self._size, limit)

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Send weights one at a time; iterates to the end even if sending fails.

        Raises:
            RuntimeError: a receiver is gone.
        """
        failure: RuntimeError | None = None
        number = 0
        for name, tensor in weights:
            if failure is None:
                try:
                    self._announce(number, name, tensor)
                    self._broadcast(tensor.to(self.device).contiguous())
                except RuntimeError as error:
                    failure = error
                number += 1
        if failure is not None:
            raise failure
        self._store.set(self._key(number), _END)
        self._round += 1

    def receive(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights that the sender sends.

        Raises:
            RuntimeError: the sender is gone.
        """
        number = 0
        while (header := bytes(self._store.get(self._key(number)))) != _END:
            name, shape, dtype = json.loads(header)
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
            self._broadcast(tensor)
            yield name, tensor
            number += 1
        self._round += 1

    def _announce(self, number: int, name: str, tensor: Tensor) -> None:
        header = [name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        self._store.set(self._key(number), json.dumps(header))

    def _broadcast(self, tensor: Tensor) -> None:
        # As bytes, because gloo does not support every type.
        self._group.broadcast(tensor.view(-1).view(torch.uint8), 0).wait(self._limit)

    def _key(self, number: int) -> str:
        return f"{self._round}/{number}"


def own_address(hosts: Iterable[str]) -> str:
    """Return an address of this machine that all hosts can reach; loopback only if all are this machine.

    Raises:
        OSError: a host has no address, or cannot be reached.
    """
    addresses = [_address_for(host) for host in hosts]
    return next((a for a in addresses if not ip_address(a.partition("%")[0]).is_loopback), addresses[0])


def _address_for(host: str) -> str:
    """Return the address of this machine on the route to a host."""
    family, kind, _, _, where = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(where)  # sends nothing; it only chooses the route
        return str(probe.getsockname()[0])
