"""The verifier pool, with real processes that hang, crash and eat memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierPool, VerifierTimeoutError, shared_pool
from ecrl.errors import EcrlError, UsageError
from tests.support import verifier_faults as faults


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    made = VerifierPool(2, memory=512)
    yield made
    made.close()


def descendants(parent: int) -> set[int]:
    """All processes below one, zombies included."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = file.read_text()
        except OSError:
            continue
        children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(file.parent.name))
    found, rest = set(), [parent]
    while rest:
        new = children.get(rest.pop(), [])
        found.update(new)
        rest += new
    return found


def settle(expected: set[int], pid: int | None = None) -> None:
    """Wait until no process is left beyond those expected."""
    end = time.monotonic() + 60
    while (left := descendants(pid or os.getpid()) - expected) and time.monotonic() < end:
        time.sleep(0.02)
    assert not left


def test_returns_and_raises(pool: VerifierPool) -> None:
    assert pool.run(faults.add, 2, 3) == 5
    with pytest.raises(ZeroDivisionError, match="a bug"):
        pool.run(faults.fail)
    with pytest.raises(TypeError, match="cannot be sent"):
        pool.run(faults.unpicklable)
    assert pool.stats.calls == 3 and pool.stats.crashes == pool.stats.timeouts == 0


def test_a_call_that_hangs_is_killed_with_all_it_started() -> None:
    before = descendants(os.getpid())
    pool = VerifierPool(1)
    begin = time.monotonic()
    with pytest.raises(VerifierTimeoutError):
        pool.run(faults.leave_children, 3600.0, timeout=1.0)
    assert time.monotonic() - begin < 60
    assert pool.run(faults.add, 1, 1) == 2
    pool.close()
    settle(before)
    assert pool.stats.timeouts == 1


def test_a_crash_and_too_much_memory_end_one_call_only(pool: VerifierPool) -> None:
    with pytest.raises(VerifierCrashError):
        pool.run(faults.crash)
    with pytest.raises(MemoryError):
        pool.run(faults.eat, 1024)
    assert pool.run(faults.eat, 64) == 64 * 2**20
    assert pool.stats.crashes == 1


def test_a_worker_is_warm_until_it_is_recycled() -> None:
    pool = VerifierPool(1, recycle=3)
    pids = [pool.run(faults.where) for _ in range(6)]
    pool.close()
    assert len(set(pids[:3])) == 1 and len(set(pids[3:])) == 1 and pids[0] != pids[3]


@pytest.mark.slow
def test_hangs_and_crashes_do_not_touch_the_calls_beside_them(pool: VerifierPool) -> None:
    def one(number: int) -> int | str:
        try:
            result: int = pool.run(faults.some_misbehave, number, timeout=3.0)
            return result
        except EcrlError as error:
            return type(error).__name__

    begin = time.monotonic()
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(one, range(100)))
    for number, result in enumerate(results):
        hangs, crashes = number % 20 == 7, number % 50 == 11
        assert result == ("VerifierTimeoutError" if hangs else "VerifierCrashError" if crashes else number**2)
    assert (pool.stats.timeouts, pool.stats.crashes, pool.stats.calls) == (5, 2, 100)
    assert pool.stats.queue_seconds > 0  # sixteen callers wait for two workers
    assert time.monotonic() - begin < 120  # five deadlines on two workers, with room; one hang takes an hour


def test_killed_workers_and_a_killed_forkserver_are_replaced(pool: VerifierPool) -> None:
    os.kill(pool.run(faults.where), signal.SIGKILL)
    with pytest.raises(VerifierCrashError):
        pool.run(faults.where)
    assert pool._forkserver is not None
    pool._forkserver.kill()
    pool._forkserver.wait()
    answers = []
    for number in range(4):
        try:
            answers.append(pool.run(faults.add, number, 0))
        except VerifierCrashError:
            answers.append(-1)
    assert answers[-1] == 3


def test_a_closed_pool_says_so(pool: VerifierPool) -> None:
    pool.close()
    pool.close()
    with pytest.raises(EcrlError, match="closed"):
        pool.run(faults.add, 1, 1)
    with pytest.raises(UsageError, match="workers"):
        VerifierPool(0)


SCRIPT = """
import os, signal, sys, threading, time
from ecrl.envs.verifiers.pool import shared_pool
from tests.support import verifier_faults as faults
threading.Thread(target=lambda: shared_pool().run(faults.sleep, 3600.0, timeout=3600.0), daemon=True).start()
shared_pool().run(faults.add, 1, 1)
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL], ids=lambda s: s.name
)
def test_nothing_outlives_the_trainer(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    below = descendants(process.pid)
    assert len(below) >= 2  # the forkserver and a worker
    process.send_signal(number)
    process.wait(60)
    process.stdout.close()
    end = time.monotonic() + 60
    while (left := [pid for pid in below if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.02)
    assert not left


def test_a_fork_has_a_pool_of_its_own() -> None:
    assert shared_pool().run(faults.add, 1, 2) == 3
    child = os.fork()
    if child == 0:
        os._exit(0 if shared_pool().run(faults.add, 2, 2) == 4 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert shared_pool().run(faults.add, 3, 2) == 5
