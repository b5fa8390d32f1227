"""Sends requests to several replicas at once, and a failed one again; a request never costs a replica.

A replica is dropped for what it is, not for what one request met: if it does not answer looks, was
restarted, gets on with nothing though it has work, or fails again and again with no success in between.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import httpx

from ecrl.engines.base import Completion, Request
from ecrl.engines.vllm.http_thread import HTTPThread
from ecrl.engines.vllm.replica import Replica, Status, cause
from ecrl.errors import EcrlError

PULSE = 2.0  # seconds between two looks at a replica
MISSES = 3  # looks in a row without an answer after which a replica is dropped
STRIKES = 5  # failures in a row after which a replica is dropped, though it answers
TRIES = 4  # how often a request is sent
_PAUSE = 0.2  # seconds before a request is sent again, times the number of its failures


@dataclass
class Job:
    """A request, and what became of it so far.

    Attributes:
        request: the request.
        eos_ids: token ids that end its completion.
        version: version of the weights that must draw it, or any later one that the servers were sent.
        tries: how often it has failed.
        avoid: URL of the replica where it failed last.
    """

    request: Request
    eos_ids: list[int]
    version: int
    tries: int = 0
    avoid: str = ""


@dataclass
class Lane:
    """A replica in use.

    Attributes:
        replica: the replica.
        boot: of the process that holds the weights.
        slots: the most requests that are open there.
        open: the requests that are.
        misses: looks in a row without an answer.
        strikes: failures in a row; those that come at once count once.
        processed: the server's count of tokens at the last look.
        since: when that count last changed, or the lane last had no request.
    """

    replica: Replica
    boot: str
    slots: int
    open: dict[asyncio.Task[None], Job] = field(default_factory=dict)
    misses: int = 0
    strikes: int = 0
    struck: float = 0.0
    processed: int = -1
    since: float = 0.0


class Dispatcher:
    """Keeps requests in flight over all replicas; those that may become longest go first.

    Args:
        http: the thread in which it works.
        max_in_flight: the most requests that are open at one replica.
        timeout: seconds without a processed token after which a replica with work is dropped.
        say: shows a line to the user.
    """

    def __init__(
        self, http: HTTPThread, max_in_flight: int, timeout: float, say: Callable[[str], None]
    ) -> None:
        self._http = http
        self._max_in_flight = max_in_flight
        self._timeout = timeout
        self._say = say
        self._lanes: dict[str, Lane] = {}
        self._waiting: list[tuple[int, int, Job]] = []
        self._order = 0
        self._version = -1
        self._done: SimpleQueue[tuple[int, Completion] | BaseException] = SimpleQueue()
        self._watching: asyncio.Task[None] | None = None
        self._causes: list[str] = []

    def expect(self, version: int) -> None:
        """Allow completions of this version of the weights, which the servers get now."""
        self._version = version

    def use(self, replicas: Sequence[tuple[Replica, Status]], connections: int) -> None:
        """Draw with these replicas from now on, also what is open.

        Args:
            replicas: each with its status.
            connections: the most that this process can open.
        """
        each = max(connections // max(len(replicas), 1), 1)
        if each < self._max_in_flight and any(s.max_num_seqs > each for _, s in replicas):
            self._say(
                f"this process may open {connections} connections, so only {each} requests go to a server at "
                "a time; raise the limit of open files (ulimit -n)."
            )
        lanes = [Lane(r, s.boot, min(self._max_in_flight, s.max_num_seqs, each)) for r, s in replicas]
        self._http.run(self._use({lane.replica.url: lane for lane in lanes}))

    @property
    def live(self) -> list[Replica]:
        """The replicas in use."""
        return [lane.replica for lane in self._lanes.values()]

    def submit(self, requests: Sequence[Request], eos_ids: list[int], version: int) -> None:
        """Accept requests.

        Args:
            requests: the requests.
            eos_ids: token ids that end a completion.
            version: version of the weights that must draw them, or any later one.
        """
        self._http.run(self._accept([Job(request, eos_ids, version) for request in requests]))

    def poll(self, seconds: float) -> list[tuple[int, Completion]]:
        """Return what finished, after at most some seconds.

        Raises:
            EcrlError: no replica is left, or a request is refused or fails everywhere; nothing is open then.
        """
        finished: list[tuple[int, Completion]] = []
        for outcome in self._outcomes(seconds):
            if isinstance(outcome, BaseException):
                self.cancel()
                raise outcome
            finished.append(outcome)
        return finished

    def cancel(self) -> None:
        """Forget all requests; the servers stop drawing them."""
        self._http.run(self._cancel())
        for _ in self._outcomes(0):
            pass

    def _outcomes(self, seconds: float) -> Iterator[tuple[int, Completion] | BaseException]:
        try:
            yield self._done.get(timeout=seconds) if seconds else self._done.get_nowait()
            while True:
                yield self._done.get_nowait()
        except Empty:
            return

    # What follows runs in the thread.

    async def _accept(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._queue(job)
        self._fill()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _use(self, lanes: dict[str, Lane]) -> None:
        before, self._causes = self._lanes, []
        kept = {url: lane for url, lane in before.items() if url in lanes and lane.boot == lanes[url].boot}
        for url, lane in kept.items():
            lane.slots, lane.strikes, lane.misses = lanes[url].slots, 0, 0
            lane.since = time.monotonic()  # it stood still while it took weights
        self._lanes = lanes | kept
        for url in before.keys() - kept.keys():
            self._requeue(before[url])
        self._fill()

    async def _cancel(self) -> None:
        self._waiting = []
        tasks = [task for lane in self._lanes.values() for task in lane.open]
        for lane in self._lanes.values():
            lane.open = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _queue(self, job: Job) -> None:
        self._order += 1
        # One that failed goes before the others; then the longest, in order of arrival.
        longest = job.request.sampling.max_new_tokens if not job.tries else 1 << 62
        heapq.heappush(self._waiting, (-longest, self._order, job))

    def _fill(self) -> None:
        """Send what waits to the replicas with the most room."""
        later = []
        while self._waiting and (free := [a for a in self._lanes.values() if len(a.open) < a.slots]):
            entry = heapq.heappop(self._waiting)
            # A request that failed waits for another replica, if there is one.
            fit = [a for a in free if len(self._lanes) == 1 or a.replica.url != entry[2].avoid]
            if fit:
                self._send(min(fit, key=lambda lane: len(lane.open) / lane.slots), entry[2])
            else:
                later.append(entry)
        for entry in later:
            heapq.heappush(self._waiting, entry)
        if not self._lanes and self._waiting:
            self._done.put(
                EcrlError(
                    f"No vLLM server is left to draw with ({'; '.join(self._causes)}); start them again and "
                    "continue from the last checkpoint with resume=RUN_DIR."
                )
            )
            self._waiting = []

    def _send(self, lane: Lane, job: Job) -> None:
        if not lane.open:
            lane.since = time.monotonic()
        task = asyncio.create_task(self._answer(lane, job))
        task.add_done_callback(self._report)
        lane.open[task] = job

    async def _answer(self, lane: Lane, job: Job) -> None:
        """Have a replica answer a request."""
        try:
            completion = await lane.replica.complete(self._http.client, job.request, job.eos_ids)
        except EcrlError as refused:
            self._done.put(refused)
        except (httpx.HTTPError, OSError) as error:
            await self._failed(lane, job, error)
        else:
            held = {completion.weights_version, *(version for version, _ in completion.earlier)}
            if job.version <= min(held) and max(held) <= self._version:
                lane.strikes = 0
                self._done.put((job.request.id, completion))
            else:
                self._drop(lane, f"it answered with weights {sorted(held)}, not {self._version}")
        task = asyncio.current_task()
        if task is not None:
            lane.open.pop(task, None)
        self._fill()

    def _report(self, task: asyncio.Task[None]) -> None:
        """Let the next poll raise an error that nobody expected."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._done.put(error)

    async def _failed(self, lane: Lane, job: Job, error: Exception) -> None:
        """Try a failed request again, and look at its replica."""
        if _out_of_files(error):  # our own trouble
            lane.slots = max(len(lane.open) - 1, 1)
        else:
            job.tries += 1
            job.avoid = lane.replica.url
            now = time.monotonic()
            if now - lane.struck > _PAUSE:
                lane.struck, lane.strikes = now, lane.strikes + 1
                await self._look(lane, f"a request failed ({cause(error)})")
            if lane.strikes >= STRIKES:
                self._drop(lane, f"{STRIKES} requests in a row failed, the last with: {cause(error)}")
        if job.tries >= TRIES:
            self._done.put(
                EcrlError(f"A request failed {TRIES} times, at last at {lane.replica.url}: {cause(error)}.")
            )
            return
        await asyncio.sleep(_PAUSE * max(job.tries, 1))
        if asyncio.current_task() in lane.open:  # else it was queued when the replica was dropped
            self._queue(job)

    async def _watch(self) -> None:
        """Look at all replicas again and again while there is work."""
        while self._waiting or any(lane.open for lane in self._lanes.values()):
            await asyncio.sleep(PULSE)
            await asyncio.gather(*(self._look(lane) for lane in list(self._lanes.values()) if lane.open))
            self._fill()

    async def _look(self, lane: Lane, reason: str = "") -> None:
        """Ask a replica how it is; drop it if it is not what it was.

        Args:
            lane: the replica.
            reason: why it is asked out of turn; then two looks that fail at once are enough.
        """
        try:
            status = await lane.replica.status(self._http.client)
        except (httpx.HTTPError, OSError) as error:
            if _out_of_files(error):  # our own trouble
                return
            lane.misses += 1
            hung = isinstance(error, httpx.TimeoutException)
            if lane.misses >= MISSES or (reason and not hung and lane.misses > 1):
                self._drop(lane, reason or f"it did not answer {MISSES} looks ({cause(error)})")
            elif reason and not hung:  # again, on a connection that is new
                await self._look(lane, reason)
            return
        lane.misses = 0
        now = time.monotonic()
        if status.boot != lane.boot:
            self._drop(lane, "it was restarted and has lost its weights")
        elif status.processed != lane.processed:
            lane.processed, lane.since = status.processed, now
        elif lane.open and now - lane.since > self._timeout:
            self._drop(lane, f"it has processed no token for {self._timeout:g} s (engine.timeout)")

    def _drop(self, lane: Lane, reason: str) -> None:
        """Use a replica no more."""
        if self._lanes.get(lane.replica.url) is not lane:
            return
        del self._lanes[lane.replica.url]
        self._causes.append(f"{lane.replica.url}: {reason}")
        self._say(
            f"the server at {lane.replica.url} is left out: {reason}. Servers left: {len(self._lanes)}; "
            "the next weight sync looks for it again."
        )
        self._requeue(lane)
        self._fill()

    def _requeue(self, lane: Lane) -> None:
        """Have others draw what a replica had in flight."""
        mine = asyncio.current_task()
        tasks, lane.open = lane.open, {}
        for task, job in tasks.items():
            self._queue(job)
            if task is not mine:
                task.cancel()


def _out_of_files(error: BaseException) -> bool:
    """Whether a request failed because this process has too many files open."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.EMFILE, errno.ENFILE):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
