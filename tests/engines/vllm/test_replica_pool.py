"""How work is spread over replicas, which needs no vLLM."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest

from ecrl.engines.base import Completion, Sampling
from ecrl.engines.vllm.replica import Replica
from ecrl.engines.vllm.replica_pool import draw

SETTINGS = (Sampling(1.0, 1.0, 4), [1], 0)


class Counting:
    """A replica that answers with the key, and may die after some answers."""

    def __init__(self, url: str, dies_after: int = 1000) -> None:
        self.url, self.dies_after, self.asked = url, dies_after, 0

    async def complete(self, client: Any, prompt: list[int], sampling: Any, key: int, *_: Any) -> Completion:
        self.asked += 1
        await asyncio.sleep(0)
        if self.asked > self.dies_after:
            raise httpx.ConnectError("gone")
        return Completion([key], [0.0], None, "stop", 0)


def drawn(jobs: int, replicas: list[Counting], in_flight: int) -> tuple[list[int], list[str]]:
    work = [([key], key) for key in range(jobs)]
    completions, live = draw(work, cast("list[Replica]", replicas), SETTINGS, in_flight, 5.0)
    return [c.token_ids[0] for c in completions], [replica.url for replica in live]


@pytest.mark.parametrize("in_flight", [1, 256])
def test_replicas_share_the_work(in_flight: int) -> None:
    replicas = [Counting(name) for name in "abc"]
    assert drawn(32, replicas, in_flight) == (list(range(32)), ["a", "b", "c"])
    assert sorted(replica.asked for replica in replicas) == [10, 11, 11]


def test_the_others_do_what_a_dead_one_left() -> None:
    replicas = [Counting("a"), Counting("b", dies_after=3), Counting("c")]
    assert drawn(32, replicas, 256) == (list(range(32)), ["a", "c"])
