"""A group of processes that broadcasts by NCCL, apart from torch's default group.

Its store is in memory: the only thing that NCCL's processes must exchange is the group's id, which the
caller carries. A time-out or a lost peer is an error of the call and never ends the process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from ecrl.distributed.environment import environment

#: torch reads these when a group is made: wait on the host, with a time limit; then raise, and leave the
#: process alone (by default torch's watchdog and its monitor end it).
_NO_WATCHDOG = {
    "TORCH_NCCL_BLOCKING_WAIT": "1",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
}
#: Where torch's group puts the id of its first communicator in its store.
_ID = "0"


class NCCLGroup:
    """One process's part of the group.

    Args:
        rank: 0 for the one that sends.
        size: number of processes.
        device: this process's GPU.
        timeout: seconds for one broadcast.
    """

    def __init__(self, rank: int, size: int, device: torch.device, timeout: float) -> None:
        self._device, self._limit = device, timedelta(seconds=timeout)
        self._store: Any = HashStore()
        options: Any = dist.ProcessGroupNCCL.Options()
        options._timeout = self._limit
        make: Any = dist.ProcessGroupNCCL
        with environment(_NO_WATCHDOG):
            self._group = make(self._store, rank, size, options)

    def open(self, tell: Callable[[bytes], None]) -> None:
        """Make the group's id and connect.

        Args:
            tell: gives the id to the other processes; called in another thread.

        Raises:
            RuntimeError: the others did not connect.
        """
        thread = threading.Thread(target=lambda: tell(bytes(self._store.get(_ID))), daemon=True)
        thread.start()
        self._connect()

    def join(self, unique_id: bytes) -> None:
        """Connect to the group with an id.

        Raises:
            RuntimeError: the others did not connect.
        """
        self._store.set(_ID, unique_id)
        self._connect()

    def broadcast(self, raw: Tensor) -> None:
        """Send, or fill, a tensor of bytes.

        Raises:
            RuntimeError: a process is gone, or took too long.
        """
        self._group.broadcast(raw, 0).wait(self._limit)

    def abort(self) -> None:
        """End what goes on, and the group."""
        with suppress(RuntimeError):
            self._group.abort()

    def _connect(self) -> None:
        self.broadcast(torch.zeros(1, dtype=torch.uint8, device=self._device))
