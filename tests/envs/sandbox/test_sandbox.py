"""The sandboxes, against programs that mean harm. Most of these would bring a machine down without one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ecrl.envs.sandbox import Limits, Outcome, Sandbox, make_sandbox
from ecrl.envs.sandbox.process import MAX_OUTPUT
from ecrl.errors import UsageError
from tests.support.paths import ROOT

needs_bwrap = pytest.mark.skipif(
    not shutil.which("bwrap"), reason="needs bubblewrap: apt-get install bubblewrap"
)
OPEN_PYTHON = next((p for p in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(p).exists()), None)


def run(sandbox: Sandbox, program: str, stdin: str = "", seconds: float = 5, memory: int = 128) -> Outcome:
    return sandbox.run(program, stdin, limits=Limits(seconds, memory))


@pytest.fixture(scope="module")
def weak() -> Sandbox:
    with pytest.warns(UserWarning, match="programs you trust"):
        try:
            return make_sandbox("rlimit")
        except UsageError:
            if OPEN_PYTHON is None:
                pytest.skip("root's Python is out of reach without root, and no other is here")
            return make_sandbox("rlimit", python=OPEN_PYTHON)


@pytest.fixture(scope="module", params=["bubblewrap", "rlimit"])
def local(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "rlimit":
        return request.getfixturevalue("weak")
    if not shutil.which("bwrap"):
        pytest.skip("needs bubblewrap: apt-get install bubblewrap")
    return make_sandbox()


@pytest.fixture(scope="module")
def jail() -> Sandbox:
    return make_sandbox()


# What every local sandbox keeps


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


# What bubblewrap keeps besides


@needs_bwrap
@pytest.mark.parametrize(
    "where", ["/", "/usr", "/usr/lib", "/dev", "/etc", "/root", "/home", "/proc", "/var/tmp"]
)
def test_no_writing_outside_the_scratch_folder(jail: Sandbox, where: str) -> None:
    outcome = run(jail, f"open({where!r} + '/mark', 'w').write('x')")
    assert outcome.status == "error"
    assert not Path(where, "mark").exists()


@needs_bwrap
def test_the_scratch_folder_is_fresh_and_small(jail: Sandbox) -> None:
    assert (
        run(jail, "open('/tmp/a', 'w').write('x'); import os; print(os.listdir('/tmp'))").stdout == "['a']\n"
    )
    assert run(jail, "import os; print(os.listdir('/tmp'))").stdout == "[]\n"
    for folder in ("/tmp", "/dev/shm"):
        fill = f"for i in range(9):\n    open(f'{folder}/{{i}}', 'wb').write(bytes(4 << 20))"
        assert "No space left" in run(jail, fill).stderr
    assert not Path("/tmp/a").exists()


@needs_bwrap
def test_it_sees_no_files_of_ours(jail: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET_KEY", "hunter2")
    (tmp_path / "secret").write_text("hunter2")
    os.chmod(tmp_path / "secret", 0o777)
    program = f"""
import glob, os
for path in ({str(tmp_path)!r}, {str(ROOT)!r}, {os.getcwd()!r}, '/etc/passwd', '/etc/shadow', '/var', '/sys', '/run',
             '/home', '/boot'):
    assert not os.path.exists(path), path
for path in ({str(Path.home())!r}, os.path.dirname(os.path.dirname(os.__file__))):
    for folder, _, files in os.walk(path):
        assert 'ecrl' not in files and 'torch' not in folder, folder
os.symlink({str(tmp_path / "secret")!r}, '/tmp/link')
for path in ['/tmp/link', *(f'/proc/{{p}}/{{w}}{tmp_path}/secret' for p in ('self', '1', '2') for w in ('root', 'cwd'))]:
    try:
        assert 'hunter2' not in open(path).read(), path
    except OSError:
        pass
for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
    try:
        assert 'hunter2' not in open(path).read(), path
    except OSError:
        pass
assert 'MY_SECRET_KEY' not in os.environ
for fd in range(3, 64):
    try:
        raise AssertionError((fd, os.readlink(f'/proc/self/fd/{{fd}}')))
    except OSError:
        pass
print('blind')
"""
    outcome = run(jail, program)
    assert outcome.stdout == "blind\n", outcome.stderr


@needs_bwrap
def test_it_cannot_change_its_input_or_its_source(jail: Sandbox) -> None:
    program = "import os\nfor fd in (0,):\n    f = os.open(f'/proc/self/fd/{fd}', os.O_RDWR)\n    os.write(f, b'zzz')"
    assert "Operation not permitted" in run(jail, program, "abc").stderr


@needs_bwrap
def test_it_is_nobody_and_stays_nobody(jail: Sandbox) -> None:
    program = """
import ctypes, os
status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
print(os.getuid(), os.getgid(), int(status['CapEff'], 16), int(status['CapBnd'], 16), status['NoNewPrivs'])
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), libc.setuid(0), libc.chroot(b'/tmp'), libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0))
print(libc.sethostname(b'x', 1), libc.reboot(0))
"""
    assert run(jail, program).stdout == "65534 65534 0 0 1\n-1 -1 -1 -1\n-1 -1\n"


@needs_bwrap
def test_no_network(jail: Sandbox) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        program = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)"
        assert "refused" in run(jail, program).stderr
    assert "unreachable" in run(jail, "import socket\nsocket.create_connection(('192.0.2.1', 80), 2)").stderr


@needs_bwrap
def test_fork_bomb(jail: Sandbox) -> None:
    for bomb in ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", _THREADS):
        outcome = run(jail, bomb, seconds=1)
        assert outcome.status == "timeout"
    assert run(jail, "print('alive')").stdout == "alive\n"


_THREADS = """
import threading, time
while True:
    try: threading.Thread(target=time.sleep, args=(9,)).start()
    except RuntimeError: pass
"""


@needs_bwrap
def test_fork_bombs_beside_it_do_not_starve_a_program(jail: Sandbox) -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    with ThreadPoolExecutor(2) as threads:
        bombs = [threads.submit(run, jail, bomb, seconds=2) for _ in range(2)]
        time.sleep(0.5)
        forks = run(jail, "import os\nif os.fork() == 0: print('child')\nelse: os.wait()", seconds=20)
        assert forks.stdout == "child\n", forks.stderr
        assert [b.result().status for b in bombs] == ["timeout"] * 2


@needs_bwrap
@pytest.mark.parametrize("target", ["1", "os.getppid()", "-1", "0"])
def test_killing_the_parent(jail: Sandbox, target: str) -> None:
    program = (
        f"import os, signal\nfor s in (15, 9):\n    try: os.kill({target}, s)\n    except OSError: pass\n"
    )
    run(jail, program)
    assert run(jail, "print('alive')").stdout == "alive\n"


@needs_bwrap
def test_it_sees_only_its_own_processes(jail: Sandbox) -> None:
    pids = run(jail, "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))").stdout
    assert json.loads(pids) in ([1, 2], [1, 2, 3])


@needs_bwrap
@pytest.mark.parametrize("ending", ["", "os._exit(0)", "time.sleep(99)", "1 / 0"])
def test_no_process_is_left(jail: Sandbox, ending: str) -> None:
    marker = f"{time.time_ns()}"
    program = (
        f"import os, time, subprocess\nx = subprocess.Popen(['/usr/bin/sleep', '7{marker}'], start_new_session=True)\n"
        f"if os.fork() == 0:\n    os.setsid()\n    time.sleep(99)\n{ending}\n"
    )
    run(jail, program, seconds=1)
    deadline = time.monotonic() + 5
    while _alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(marker)


def _alive(marker: str) -> bool:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return any(marker.encode() in text and b"sleep" in text for text in found)


@needs_bwrap
def test_it_dies_with_the_trainer(tmp_path: Path) -> None:
    marker = f"{time.time_ns()}"
    program = f"import subprocess\nsubprocess.run(['/usr/bin/sleep', '8{marker}'])"
    code = (
        "from ecrl.envs.sandbox import Limits, make_sandbox\n"
        f"make_sandbox().run({program!r}, limits=Limits(60, 128))"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not _alive(marker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _alive(marker)
    finally:
        trainer.kill()
        trainer.wait()
    while _alive(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(marker)


@needs_bwrap
def test_children_are_bound_like_their_parent(jail: Sandbox) -> None:
    program = (
        "import os, time\nfor _ in range(100):\n    try:\n        if os.fork() == 0:\n"
        "            x = bytearray(1 << 30); os._exit(0)\n    except OSError: pass\n"
        "ok = 0\nwhile True:\n    try: ok += os.waitstatus_to_exitcode(os.wait()[1]) == 0\n"
        "    except ChildProcessError: break\nprint(ok)"
    )
    assert run(jail, program).stdout == "0\n"


def test_without_bubblewrap_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ecrl.envs.sandbox import bubblewrap

    bubblewrap._command.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"apt-get install bubblewrap.*sandbox=rlimit"):
        make_sandbox()
    monkeypatch.undo()
    bubblewrap._command.cache_clear()


@needs_bwrap
def test_a_bubblewrap_that_cannot_isolate_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecrl.envs.sandbox import bubblewrap

    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    bubblewrap._command.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UsageError, match=r"No permissions to create new namespace.*user namespaces"):
        make_sandbox()
    monkeypatch.undo()
    bubblewrap._command.cache_clear()


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


# Over HTTP


class _Fusion(BaseHTTPRequestHandler):
    """SandboxFusion's `/run_code`, with a local sandbox behind it."""

    sandbox: Sandbox
    fail: list[int]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.fail:
            self.send_error(self.fail.pop())
            return
        assert self.path == "/run_code" and request["language"] == "python"
        if request["code"] == "flood":
            answer: Any = {"status": "Success", "run_result": {"stdout": "x" * (20 * MAX_OUTPUT)}}
        elif request["code"] == "broken":
            answer = {"status": "SandboxError", "message": "no worker", "run_result": None}
        elif request["code"] == "nonsense":
            answer = ["what?"]
        else:
            answer = self._run(request)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        done = self.sandbox.run(
            request["code"],
            request["stdin"],
            limits=Limits(request["run_timeout"], request["memory_limit_MB"]),
        )
        finished = "TimeLimitExceeded" if done.status == "timeout" else "Finished"
        return {
            "status": "Success" if done.status == "ok" else "Failed",
            "message": "",
            "compile_result": None,
            "run_result": {
                "status": finished,
                "execution_time": done.seconds,
                "return_code": int(done.status != "ok"),
                "stdout": done.stdout,
                "stderr": done.stderr,
            },
            "executor_pod_name": None,
            "files": {},
        }

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def fusion(local: Sandbox) -> Iterator[tuple[Sandbox, list[int]]]:
    handler = type("Handler", (_Fusion,), {"sandbox": local, "fail": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield make_sandbox("http", url=f"http://127.0.0.1:{server.server_port}/"), handler.fail
    server.shutdown()
    server.server_close()


def test_http(fusion: tuple[Sandbox, list[int]]) -> None:
    remote, fail = fusion
    assert run(remote, "print(input() * 2)", "añ").stdout == "añañ\n"
    assert run(remote, "1 / 0").status == "error"
    assert "ZeroDivisionError" in run(remote, "1 / 0").stderr
    assert run(remote, "while True: pass", seconds=1).status == "timeout"
    assert run(remote, "\ud800").status == "error"
    assert run(remote, "flood").status == "output"
    assert run(remote, "broken") == Outcome("error", "", "no worker", 0.0)
    fail += [503, 500]
    assert run(remote, "print(1)").stdout == "1\n", "a server that stumbles is asked again"


def test_http_that_fails_is_no_verdict(fusion: tuple[Sandbox, list[int]]) -> None:
    from ecrl.envs.sandbox import SandboxError

    remote, fail = fusion
    fail += [500, 500, 500]
    with pytest.raises(SandboxError, match=r"failed 3 times.*500"):
        run(remote, "print(1)")
    with pytest.raises(SandboxError, match="failed 3 times"):
        run(remote, "nonsense")
    with pytest.raises(UsageError, match="bubblewrap"):
        remote.converse("", "", limits=Limits(1, 128))
