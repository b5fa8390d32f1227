"""The data-parallel processes of a run, and the few things that they say to each other.

Whatever is decided globally (problems, plans, metrics) is decided by every process from the same
numbers; what is shared out (episodes, forward passes) is put together again here. All of it is control
traffic on the CPU: gloo, whatever carries the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class ProcessGroup:
    """One process of ``size`` that share the work; ``ProcessGroup()`` is a process_group of one.

    Ranks that hold parts of one tensor-parallel replica do the same work, so they count as one.

    Args:
        tensor_parallel_size: processes that hold one replica together.
        timeout: seconds after which a silent peer is an error.

    Attributes:
        rank: this process's data-parallel rank.
        size: number of data-parallel ranks.
        processes: number of all processes.
    """

    def __init__(self, tensor_parallel_size: int = 1, timeout: float = 1800.0) -> None:
        self.rank, self.size, self.processes = 0, 1, 1
        self._settings = tensor_parallel_size, timeout
        self._peers: Any = None
        self._everyone: Any = None
        if not dist.is_initialized():
            return
        limit = timedelta(seconds=timeout)
        self.processes = dist.get_world_size()
        ranks = list(range(self.processes))
        self._everyone = dist.new_group(ranks, backend="gloo", timeout=limit)
        rows = [ranks[i::tensor_parallel_size] for i in range(tensor_parallel_size)]
        make_groups: Any = dist.new_subgroups_by_enumeration
        self._peers, _ = make_groups(rows, backend="gloo", timeout=limit)
        self.rank, self.size = dist.get_rank(self._peers), dist.get_world_size(self._peers)

    def another(self) -> ProcessGroup:
        """Open a second channel among the same processes, for another thread; a collective."""
        return ProcessGroup(*self._settings)

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self._everyone is None or dist.get_rank() == 0

    def share(self, count: int) -> range:
        """Return this rank's contiguous share of ``count`` items."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, items: Sequence[T]) -> list[T]:
        """Join every rank's items, in rank order, on every rank."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(items), group=self._peers)
        return [item for part in parts for item in part]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a CPU tensor over the ranks, in place; the same bits on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self._peers)
        return tensor

    def max(self, value: int) -> int:
        """Return the largest of the ranks' numbers, over all processes."""
        if self._everyone is None:
            return value
        largest = torch.tensor(value)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._everyone)
        return int(largest)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return bool(self.max(int(flag)))

    def first(self, make: Callable[[], T]) -> T:
        """Call ``make`` on the first process alone; return its result, or raise its error, on all."""
        if self._everyone is None:
            return make()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = make()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, group=self._everyone)
        if answer[1] is not None:
            answer[1].said_elsewhere = not self.is_first
            raise answer[1]
        return answer[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Wait until every process is here."""
        self.max(0)
