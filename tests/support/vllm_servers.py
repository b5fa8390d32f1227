"""Real vLLM servers for tests, each an `ecrl serve` in processes of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import torch

from ecrl.engines.base import Completion
from ecrl.policy.model import PolicyModel
from tests.support.processes import session_processes
from tests.support.scripted_server import TOKEN


class Server:
    """One `ecrl serve`, in a process group of its own."""

    def __init__(self, model: Path, port: int, *settings: str) -> None:
        self.model, self.port, self.settings = model, port, settings
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "ecrl", "serve", f"model.path={self.model}", f"port={self.port}"]
        self.process = subprocess.Popen(
            [*command, "dtype=float32", "max_model_len=128", *self.settings],
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server on {self.port} ended by itself"
            try:
                if self.call("/status").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        raise AssertionError("the server did not start")

    def call(self, path: str, token: str = TOKEN, **settings: Any) -> httpx.Response:
        """Call the server as a client would that has this secret."""
        settings.setdefault("json", {})
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.post(self.url + path, headers=headers, timeout=20, **settings)

    def kill(self) -> None:
        """Kill the server alone; vLLM's own processes end with it."""
        self.process.kill()
        self.process.wait()
        end = time.monotonic() + 60
        while left := session_processes(self.process.pid):
            assert time.monotonic() < end, left
            time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def disturb(model: PolicyModel, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=random)


def tokens(completions: Sequence[Completion]) -> list[list[int]]:
    return [c.token_ids for c in completions]
