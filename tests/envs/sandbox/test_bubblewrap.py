"""Bubblewrap against programs that mean harm. Most of these would bring a machine down without it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecrl.envs.sandbox import Sandbox, make_sandbox
from ecrl.errors import UsageError
from tests.support.paths import ROOT
from tests.support.sandboxes import needs_bwrap, run


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


@pytest.mark.slow
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
