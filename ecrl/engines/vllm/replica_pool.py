"""Generates completions on several replicas at once, and retries a failed request on another replica."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import httpx

from ecrl.engines.base import Completion, Sampling
from ecrl.engines.vllm.replica import QUICK, Replica, StaleReplicaError
from ecrl.errors import EcrlError

Job = tuple[list[int], int]  # prompt, key
Settings = tuple[Sampling, list[int], int]  # how to sample, ids that end a completion, version of the weights
PULSE = 2.0  # seconds between two health checks of a replica
MISSES = 3  # failed health checks in a row after which a replica counts as dead


def draw(
    jobs: Sequence[Job], replicas: Sequence[Replica], settings: Settings, in_flight: int, timeout: float
) -> tuple[list[Completion], list[Replica]]:
    """Generate one completion for each job.

    Args:
        jobs: prompt and key of each completion.
        replicas: the replicas that hold the weights.
        settings: how to sample, and with which weights.
        in_flight: the most requests that are open at one replica.
        timeout: seconds for one completion.

    Returns:
        The completions, in the order of the jobs, and the replicas that are still alive.

    Raises:
        EcrlError: no replica is left, or one refuses a request.
    """
    return asyncio.run(ReplicaPool(jobs, replicas, settings, in_flight, timeout).draw())


class ReplicaPool:
    """Distributes one list of jobs over replicas; a failed replica's jobs go to the others."""

    def __init__(
        self,
        jobs: Sequence[Job],
        replicas: Sequence[Replica],
        settings: Settings,
        in_flight: int,
        timeout: float,
    ) -> None:
        self._jobs = jobs
        self._live = list(replicas)
        self._settings = settings
        self._in_flight = in_flight
        self._timeout = timeout
        self._open = deque(range(len(jobs)))
        self._done: dict[int, Completion] = {}
        self._causes: list[str] = []

    async def draw(self) -> tuple[list[Completion], list[Replica]]:
        """Generate all completions; see :func:`draw`."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=self._timeout, limits=limits) as client:
            # A replica may fail after the others have finished, so repeat until all jobs are done.
            while self._open:
                if not self._live:
                    raise EcrlError(
                        f"No vLLM server is left to draw with ({'; '.join(self._causes)}); start them again "
                        "and continue from the last checkpoint with resume=RUN_DIR."
                    )
                await asyncio.gather(*(self._use(replica, client) for replica in list(self._live)))
        return [self._done[i] for i in range(len(self._jobs))], self._live

    async def _use(self, replica: Replica, client: httpx.AsyncClient) -> None:
        """Send requests to a replica until no jobs are left or the replica is dead."""
        share = -(-len(self._open) // len(self._live))  # so that the first replica does not take all jobs
        count = min(self._in_flight, share)
        workers = [asyncio.create_task(self._work(replica, client)) for _ in range(count)]
        watch = asyncio.create_task(self._watch(replica, client))
        try:
            # `watch` ends only if the replica is dead.
            everything = asyncio.ensure_future(asyncio.gather(*workers))
            first: list[asyncio.Future[Any]] = [everything, watch]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            failure = (everything if everything.done() else watch).exception()
        finally:
            for task in [*workers, watch]:
                task.cancel()
            await asyncio.gather(*workers, watch, return_exceptions=True)
        if isinstance(failure, (httpx.HTTPError, StaleReplicaError)):
            self._live.remove(replica)
            self._causes.append(f"{replica.url}: {type(failure).__name__} {failure}".strip())
        elif failure is not None:
            raise failure

    async def _work(self, replica: Replica, client: httpx.AsyncClient) -> None:
        sampling, eos_ids, version = self._settings
        while self._open:
            number = self._open.popleft()
            prompt, key = self._jobs[number]
            try:
                self._done[number] = await replica.complete(client, prompt, sampling, key, eos_ids, version)
            finally:
                if number not in self._done:
                    self._open.append(number)

    async def _watch(self, replica: Replica, client: httpx.AsyncClient) -> None:
        """Raise when a replica stops answering health checks: it may hang instead of refusing requests."""
        misses = 0
        while True:
            await asyncio.sleep(PULSE)
            try:
                answer = await client.get(f"{replica.url}/health", timeout=QUICK)
                answer.raise_for_status()
                misses = 0
            except httpx.HTTPError:
                misses += 1
                if misses == MISSES:
                    raise
