"""Real vLLM servers for tests, each an `ecrl serve` in processes of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from ecrl.engines.base import Completion, Request, Sampling
from ecrl.engines.vllm.server import VLLMServerEngine
from ecrl.policy.model import PolicyModel
from ecrl.policy.weights import HFWeights
from tests.support.processes import session_processes
from tests.support.scripted_server import TOKEN


class Server:
    """One `ecrl serve`, in a process group of its own, with ``max_model_len=128`` unless it is set."""

    def __init__(self, model: Path, port: int, *settings: str) -> None:
        self.model, self.port, self.settings = model, port, settings
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        words = [f"model.path={self.model}", f"port={self.port}", "dtype=float32", *self.settings]
        if not any(word.startswith("max_model_len=") for word in words):
            words.append("max_model_len=128")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ecrl", "serve", *words],
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


def move_adapters(model: PolicyModel, seed: int) -> None:
    """As training does: nothing else moves."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=random)


def check_a_sync_in_mid_rollout(
    engine: VLLMServerEngine, prompts: Sequence[Sequence[int]], models: Mapping[int, PolicyModel]
) -> None:
    """Check that what is open at a pause goes on with new weights, each token with its own weights' log-prob.

    Args:
        engine: holds the first version's weights, and has drawn before: a server's first pass takes long.
        prompts: to complete.
        models: the policy by version, the old one and the new one.
    """
    new = max(models)
    # Enough to last until the pause, and of different lengths: those of one length would end together.
    lengths = [110 - i % 50 for i in range(200)]
    requests = [
        Request(i, prompts[i % len(prompts)], i, Sampling(1.0, 1.0, n)) for i, n in enumerate(lengths)
    ]
    engine.submit(requests)
    done: dict[int, Completion] = {}
    while not done:
        done |= dict(engine.poll())
    assert engine.pausable
    engine.pause()
    engine.sync_weights(HFWeights(models[new].lm), new)
    engine.resume()
    while len(done) < len(requests):
        done |= dict(engine.poll())
    assert len([c for c in done.values() if c.earlier]) >= 4
    for number, completion in done.items():
        check_logprobs(completion, requests[number].prompt, models)


def check_logprobs(completion: Completion, prompt: Sequence[int], models: Mapping[int, PolicyModel]) -> None:
    """The log-prob of each token is that of the version which drew it, and versions rise."""
    ids, count = completion.token_ids, len(completion.token_ids)
    last = (completion.weights_version, count - sum(n for _, n in completion.earlier))
    spans = [*completion.earlier, last]
    versions = [version for version, _ in spans]
    assert versions == sorted(set(versions)) and all(n > 0 for _, n in spans)
    drawn = [v for version, n in spans for v in [version] * n]
    by = {v: scores(model, [*prompt, *ids])[len(prompt) - 1 :] for v, model in models.items()}
    want = torch.stack([by[version][i] for i, version in enumerate(drawn)])
    assert torch.tensor(completion.logprobs) == pytest.approx(want, abs=1e-3)


@torch.no_grad()
def scores(model: PolicyModel, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of the tokens after the first, by transformers."""
    logprobs = model.lm(torch.tensor([ids])).logits.log_softmax(-1)[0, :-1]
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def tokens(completions: Sequence[Completion]) -> list[list[int]]:
    return [c.token_ids for c in completions]
