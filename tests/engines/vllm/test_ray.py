"""The example that has Ray place the servers, run as by hand on a Ray of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.engines.vllm.server import VLLMServerEngine
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.policy.weights import HFWeights
from tests.support.paths import ROOT
from tests.support.processes import session_processes
from tests.support.scripted_server import TOKEN

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "ray_servers.py"
PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30, 5], [40, 41]] * 4
SECONDS = 600.0  # for starting or ending, on a busy machine


class Example:
    """The example in a session of its own, which all processes that Ray and vLLM start stay in."""

    def __init__(self, model: Path, folder: str) -> None:
        settings = {"RAY_ADDRESS": "local", "RAY_TMPDIR": folder, "RAY_AUTH_TOKEN": "0" * 64}
        settings |= {"RAY_USAGE_STATS_ENABLED": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
        command = [sys.executable, str(EXAMPLE), f"--model={model}", "--replicas=2", "--gpus=0"]
        self.log = Path(folder) / "output"
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--dtype=float32", f"--seconds={SECONDS}"],
                env=os.environ | settings,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def urls(self) -> list[str]:
        """Wait for the override that it prints, and return the URLs in it."""
        while not (found := re.search(r"^engine=vllm_server engine.urls=\[(.*)\]", self.output(), re.M)):
            assert self.process.poll() is None, self.output()
            time.sleep(0.5)
        return found[1].split(",")

    def output(self) -> str:
        return self.log.read_text()

    def left(self) -> list[int]:
        """Return the processes of its session that run."""
        return session_processes(self.process.pid)


@contextmanager
def example(model: Path) -> Iterator[Example]:
    # Not in `tmp_path`: the path of a Ray socket has room for little more than this.
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        started = Example(model, folder)
        try:
            yield started
        finally:
            for pid in started.left():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            started.process.wait()


def drawn(url: str) -> float:
    """Return how many tokens a replica has processed."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return float(httpx.post(f"{url}/status", json={}, headers=headers).json()["processed"])


@pytest.mark.timeout(3 * SECONDS)
def test_servers_placed_by_ray(tiny_model: Path) -> None:
    model = load_policy(str(tiny_model), load_tokenizer(str(tiny_model)))
    with example(tiny_model) as running:
        urls = running.urls()
        engine = VLLMServerEngine(model, ProcessGroup(), urls=urls, dtype="float32")
        engine.sync_weights(HFWeights(model.lm), 1)
        before = [drawn(url) for url in urls]
        settings = Sampling(0.0, 1.0, 12), list(range(len(PROMPTS)))
        got = engine.generate(PROMPTS, *settings)
        want = HFEngine(model, ProcessGroup()).generate(PROMPTS, *settings)
        assert [c.token_ids for c in got] == [c.token_ids for c in want]
        after = [drawn(url) for url in urls]
        assert len(urls) == 2 and all(b > a for a, b in zip(before, after, strict=True))
        running.process.terminate()
        assert running.process.wait(SECONDS) == 0
        assert not running.left(), running.output()


@pytest.mark.timeout(2 * SECONDS)
def test_a_server_that_fails_ends_all(tmp_path: Path) -> None:
    with example(tmp_path / "missing") as running:
        assert running.process.wait(SECONDS) == 1
        assert "Traceback" not in running.output() and "Unhandled" not in running.output()
        assert re.search(r"^The server at http://\S+ ended with code 2$", running.output(), re.M)
        assert not running.left(), running.output()


def test_without_ray() -> None:
    program = f"import runpy, sys; sys.modules['ray'] = None; runpy.run_path({str(EXAMPLE)!r})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.endswith("pip install ray\n") and ended.stderr.count("\n") == 1
