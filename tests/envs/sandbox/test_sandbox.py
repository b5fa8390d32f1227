"""What every local sandbox keeps, and choices of a sandbox that cannot be."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ecrl.envs.sandbox import Sandbox, make_sandbox
from ecrl.envs.sandbox.process import MAX_OUTPUT
from ecrl.errors import UsageError
from tests.support.sandboxes import run


def test_a_program_reads_and_writes(local: Sandbox) -> None:
    outcome = run(local, "import sys\nprint(input()[::-1]); print('é', file=sys.stderr)", "añb\n")
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "bña\n", "é\n")
    assert 0 < outcome.seconds < 5


def test_it_looks_like_a_script(local: Sandbox) -> None:
    program = (
        "from dataclasses import dataclass\nimport sys\n"
        "@dataclass\nclass Point:\n    x: int\n"
        "if __name__ == '__main__': print(Point(3), len(sys.argv)); exit()\n"
    )
    assert run(local, program).stdout == "Point(x=3) 1\n"
    assert "NameError" in run(local, "print(os.name)").stderr, "names of ours must not help a program"


@pytest.mark.parametrize(
    ("program", "status", "says"),
    [
        ("raise ValueError('no')", "error", "ValueError: no"),
        ("import sys; sys.exit(3)", "error", ""),
        ("x = bytearray(1 << 30)", "error", "MemoryError"),
        ("x = [0]\nwhile True: x += x", "error", "MemoryError"),
        ("def f(): f()\nf()", "error", "RecursionError"),
        ("\ud800", "error", "SyntaxError"),
        ("\x00", "error", "null bytes"),
        ("(" * 10_000, "error", "SyntaxError"),
        ("while True: pass", "timeout", ""),
        ("import time; time.sleep(99)", "timeout", ""),
        ("import signal, time\nfor s in (2, 15, 24): signal.signal(s, print)\ntime.sleep(99)", "timeout", ""),
        ("while True: print('x' * 1000)", "output", ""),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output", ""),
        ("import os\nos.kill(os.getpid(), 9)", "error", ""),
        ("open('big', 'wb').write(bytes(1 << 26))", "error", "File too large"),
    ],
)
def test_limits(local: Sandbox, program: str, status: str, says: str) -> None:
    start = time.monotonic()
    outcome = run(local, program, seconds=1)
    assert outcome.status == status
    assert says in outcome.stderr
    assert len(outcome.stdout) <= MAX_OUTPUT and len(outcome.stderr) <= MAX_OUTPUT
    assert time.monotonic() - start < 60  # sleep and loops would take longer


def test_a_program_that_never_reads_and_one_that_only_reads(local: Sandbox) -> None:
    text = "x" * (3 * MAX_OUTPUT)
    assert run(local, "print(1)", text).stdout == "1\n"
    assert run(local, "import sys; print(len(sys.stdin.read()))", text).stdout == f"{len(text)}\n"


def test_a_child_that_holds_the_pipes_does_not_hold_us(local: Sandbox) -> None:
    start = time.monotonic()
    program = "import os, time\nprint(1, flush=True)\ntry:\n    os.fork() or time.sleep(600)\nexcept OSError: pass\n"
    assert run(local, program, seconds=300).stdout.startswith("1\n")
    assert time.monotonic() - start < 60


def test_many_at_once_do_not_mix(local: Sandbox) -> None:
    with ThreadPoolExecutor(8) as threads:
        outcomes = threads.map(lambda i: run(local, "print(int(input()) ** 2)", str(i)), range(40))
    assert [o.stdout for o in outcomes] == [f"{i * i}\n" for i in range(40)]


def test_nothing_stays_open(local: Sandbox) -> None:
    run(local, "print(1)")
    before = os.listdir("/proc/self/fd")
    for program in ("print(1)", "while True: print('x' * 1000)", "1 / 0"):
        run(local, program)
    assert os.listdir("/proc/self/fd") == before
    assert all(t is threading.main_thread() for t in threading.enumerate() if not t.daemon)


@pytest.mark.parametrize(
    ("seconds", "memory"),
    [(0, 128), (-1, 128), ("1", 128), (float("nan"), 128), (True, 128), (1, 8), (1, 0.5)],
)
def test_limits_that_are_none(local: Sandbox, seconds: Any, memory: Any) -> None:
    with pytest.raises(UsageError, match=r"limit must be .*got"):
        run(local, "", seconds=seconds, memory=memory)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"name": "docker"}, "Unknown sandbox 'docker'"),
        ({"python": "/no/python"}, "/no/python"),
        ({"python": "/bin/true"}, "does not answer"),
        ({"url": "http://x"}, "sandbox=http only"),
        ({"name": "http"}, "sandbox_url=http"),
        ({"name": "http", "url": "http://127.0.0.1:9"}, "failed 3 times.*refused"),
        ({"name": "http", "url": "http://x", "python": "p"}, "the server chooses the interpreter"),
    ],
)
def test_bad_choices(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_sandbox(**kwargs)
