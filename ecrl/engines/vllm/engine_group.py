"""The processes of a run that hold one engine together, each a part of every layer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

T = TypeVar("T")


class EngineGroup:
    """Consecutive processes of a run, among which vLLM splits a model (tensor parallelism).

    Args:
        size: number of processes in a group; it divides that of the run.
        timeout: seconds after which a silent peer is an error.

    Attributes:
        size: number of processes in a group.
    """

    def __init__(self, size: int, timeout: float) -> None:
        self.size = size
        self._group: Any = None
        if size > 1:
            ranks = range(dist.get_world_size())
            groups = [list(ranks[first : first + size]) for first in ranks[::size]]
            make_groups: Any = dist.new_subgroups_by_enumeration
            self._group, _ = make_groups(groups, backend="gloo", timeout=timedelta(seconds=timeout))

    def gather(self, item: T) -> list[T]:
        """Return the item of every process of the group, in the order of their ranks, in each of them."""
        if self._group is None:
            return [item]
        items: list[Any] = [None] * self.size
        dist.all_gather_object(items, item, group=self._group)
        return items
