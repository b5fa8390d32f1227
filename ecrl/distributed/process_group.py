"""The data-parallel process group of a run, and its collectives on control data.

Global decisions (problems, loss plans, metrics) are made by every process from the same numbers. Work that
is divided (episodes, forward passes) is gathered again here. All of this is small data on the CPU, sent by
gloo whatever backend carries the gradients.
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
    """This process's view of the ``size`` data-parallel ranks that divide the work.

    Without ``torch.distributed``, or in a group of one process, nothing is sent. The processes that hold one
    tensor-parallel replica do the same work, so they have the same rank here.

    Args:
        tensor_parallel_size: number of processes that hold one replica together.
        timeout: seconds after which a silent peer is an error.

    Attributes:
        rank: this process's data-parallel rank.
        size: number of data-parallel ranks.
        processes: number of all processes of the run.
    """

    def __init__(self, tensor_parallel_size: int = 1, timeout: float = 1800.0) -> None:
        self.rank, self.size, self.processes = 0, 1, 1
        self._settings = tensor_parallel_size, timeout
        self._data_parallel: Any = None
        self._all: Any = None
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        limit = timedelta(seconds=timeout)
        self.processes = dist.get_world_size()
        ranks = list(range(self.processes))
        self._all = dist.new_group(ranks, backend="gloo", timeout=limit)
        groups = [ranks[i::tensor_parallel_size] for i in range(tensor_parallel_size)]
        make_groups: Any = dist.new_subgroups_by_enumeration
        self._data_parallel, _ = make_groups(groups, backend="gloo", timeout=limit)
        self.rank = dist.get_rank(self._data_parallel)
        self.size = dist.get_world_size(self._data_parallel)

    def another(self) -> ProcessGroup:
        """Create a second group of the same processes, for use in another thread; a collective."""
        return ProcessGroup(*self._settings)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes for the run."""
        return self._all is None or dist.get_rank() == 0

    def share(self, count: int) -> range:
        """Return this rank's contiguous share of ``count`` items."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, items: Sequence[T]) -> list[T]:
        """Concatenate every rank's items, in rank order, on every rank."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, list(items), group=self._data_parallel)
        return [item for part in parts for item in part]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a CPU tensor over the ranks, in place; the result has the same bits on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self._data_parallel)
        return tensor

    def max(self, value: int) -> int:
        """Return the largest value of all processes."""
        if self._all is None:
            return value
        largest = torch.tensor(value)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self._all)
        return int(largest)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return bool(self.max(int(flag)))

    def first(self, make: Callable[[], T]) -> T:
        """Call ``make`` on the first process only; return its result, or raise its error, on all."""
        if self._all is None:
            return make()
        outcome: list[Any] = [None, None]  # result, error
        if self.is_first:
            try:
                outcome[0] = make()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self._all)
        if outcome[1] is not None:
            outcome[1].said_elsewhere = not self.is_first
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.max(0)
