"""Rollouts by real vLLM servers: two processes on loopback, killed and restarted in the middle of work."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from transformers import Qwen2Tokenizer

from ecrl.cli import main
from ecrl.config.schema import ModelConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.engines.vllm.server import VLLMServerEngine
from ecrl.engines.vllm.wire import pack_ints
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.policy.tiny_model import build_model, build_tokenizer
from ecrl.policy.weights import HFWeights
from tests.support.processes import session_processes
from tests.support.runs import history, run
from tests.support.scripted_server import TOKEN
from tests.support.tiny import TINY
from tests.support.vllm_servers import (
    Server,
    check_a_sync_in_mid_rollout,
    disturb,
    free_port,
    tokens,
)

pytestmark = pytest.mark.slow

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12)
PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30, 5], [40, 41]] * 8
KEYS = list(range(len(PROMPTS)))


@pytest.fixture(scope="module")
def servers(tiny_model: Path) -> Iterator[list[Server]]:
    started = [Server(tiny_model, free_port()) for _ in range(2)]
    for server in started:
        server.wait()
    yield started
    for server in started:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def model(tiny_model: Path) -> PolicyModel:
    return load_policy(str(tiny_model), load_tokenizer(str(tiny_model)))


def engine_for(servers: Sequence[Server], model: PolicyModel, max_in_flight: int = 4) -> VLLMServerEngine:
    urls = [server.url for server in servers]
    return VLLMServerEngine(
        model, ProcessGroup(), urls=urls, dtype="float32", max_in_flight=max_in_flight, timeout=60.0
    )


@pytest.mark.timeout(600)
def test_greedy_and_logprobs_follow_the_weights(servers: list[Server], model: PolicyModel) -> None:
    engine, reference = engine_for(servers, model), HFEngine(model, ProcessGroup())
    for version in range(3):
        engine.sync_weights(HFWeights(model.lm), version)
        got = engine.generate(PROMPTS, Sampling(0.0, 1.0, 12), KEYS)
        want = reference.generate(PROMPTS, Sampling(0.0, 1.0, 12), KEYS)
        assert tokens(got) == tokens(want)
        assert {c.weights_version for c in got} == {version}
        for a, b in zip(got, want, strict=True):
            assert a.finish_reason == b.finish_reason
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        disturb(model, seed=version)


def test_a_completion_is_the_same_on_any_replica(servers: list[Server], model: PolicyModel) -> None:
    both = engine_for(servers, model)
    both.sync_weights(HFWeights(model.lm), 7)
    together = both.generate(PROMPTS, SAMPLING, KEYS)
    assert tokens(both.generate(PROMPTS[::-1], SAMPLING, KEYS[::-1])[::-1]) == tokens(together)
    assert tokens(both.generate(PROMPTS, SAMPLING, [k + 99 for k in KEYS])) != tokens(together)
    alone = engine_for(servers[1:], model)
    alone.sync_weights(HFWeights(model.lm), 7)
    assert tokens(alone.generate(PROMPTS, SAMPLING, KEYS)) == tokens(together)
    ends = [c.token_ids[-1] in model.eos_ids for c in together]
    assert ends == [c.finish_reason == "stop" for c in together]


def test_other_weights_than_were_sent_are_noticed(servers: list[Server], model: PolicyModel) -> None:
    engine = engine_for(servers, model)
    engine.sync_weights(HFWeights(model.lm), 1)
    # Others who have the secret update the same servers meanwhile.
    engine_for(servers[:1], model).sync_weights(HFWeights(model.lm), 5)
    with pytest.raises(EcrlError, match="version 5, not 1"):
        engine.confirm(1)
    engine_for(servers, model).sync_weights(HFWeights(model.lm), 2)
    with pytest.raises(EcrlError, match=r"answered with weights \[2\], not 1"):
        engine.generate(PROMPTS, SAMPLING, KEYS)
    engine.close()


@pytest.mark.timeout(600)
def test_a_stranger_gets_nothing(
    servers: list[Server],
    model: PolicyModel,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, engine = servers[0], engine_for(servers[:1], model)
    engine.sync_weights(HFWeights(model.lm), 11)
    want = tokens(engine.generate(PROMPTS, SAMPLING, KEYS))
    before = server.call("/status").json()
    calls = ["/status", "/model", "/generate", "/probe", "/pause", "/collective_rpc", "/v1/completions"]
    calls += [f"/weights/{name}" for name in ("join", "receive", "receipts", "accept")]
    for path in [*calls, "/health", "/metrics", "/docs", "/openapi.json", "/", "/inference/v1/generate"]:
        for token in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
            assert server.call(path, token).status_code == 401
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD"):
            assert httpx.request(method, server.url + path).status_code == 401
    # Malformed, huge and half-sent requests; with the secret they are refused as well.
    for raw in (
        b"\x00" * 10_000,
        b"GET / HTTP/9\r\n\r\n",
        b"POST /generate HTTP/1.1\r\n" + b"a: b\r\n" * 10**5,
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as stranger, suppress(OSError):
            stranger.sendall(raw)
    half = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for connection in half:
        connection.sendall(b"POST /status HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\nx")
    for token, status in (("", 401), (TOKEN, 413)):
        with suppress(httpx.TransportError):  # the server may hang up before all is sent
            assert server.call("/generate", token, json=None, content=b"[" * (65 << 20)).status_code == status
    sampling = {"max_tokens": 2, "logprobs": 0}
    for path, body in [
        ("/generate", {"prompt": pack_ints([10**6]), "sampling": sampling}),
        ("/generate", {"prompt": pack_ints([-5]), "sampling": sampling}),
        ("/generate", {"prompt": pack_ints([]), "sampling": sampling}),
        ("/generate", {"prompt": pack_ints([1] * 127), "sampling": sampling}),
        ("/generate", {"prompt": pack_ints([1]), "sampling": {**sampling, "temperature": -1}}),
        ("/generate", {"prompt": pack_ints([1]), "sampling": {**sampling, "logprobs": -2}}),
        ("/generate", {"prompt": [1], "sampling": sampling}),
        ("/weights/receipts", {"shapes": {"x": "__import__('os')"}}),
        ("/weights/join", {"address": "127.0.0.1"}),
    ]:
        assert server.call(path, json=body).status_code == 400, (path, body)
    assert server.call("/collective_rpc", json={"method": "ecrl_model"}).status_code == 404
    # A run without the secret ends before it starts, in one line that does not show it.
    monkeypatch.setenv("ECRL_SERVER_TOKEN", "another-secret-of-another-run")
    command = ["train", "engine=vllm_server", f"engine.urls=[{server.url}]", f"model.path={tiny_model}"]
    ended = subprocess.run(
        [sys.executable, "-m", "ecrl", *command, f"run_dir={tmp_path}/run"], capture_output=True, text=True
    )
    assert ended.returncode == 2 and "does not accept this run's secret (401)" in ended.stderr
    assert "another-secret" not in ended.stderr + ended.stdout and not (tmp_path / "run").exists()
    # Nothing has changed for those who have it.
    for connection in half:
        connection.close()
    after = server.call("/status").json()
    assert {**after, "processed": 0} == {**before, "processed": 0}
    assert tokens(engine.generate(PROMPTS, SAMPLING, KEYS)) == want
    engine.close()


def test_only_the_port_is_open_to_others(servers: list[Server]) -> None:
    own = session_processes(servers[0].process.pid)
    listening = [c for pid in own for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"]
    assert servers[0].port in {c.laddr.port for c in listening}
    assert {c.laddr.ip for c in listening} <= {"127.0.0.1", "::1"}


def test_what_a_server_cannot_hold_is_refused(servers: list[Server], model: PolicyModel) -> None:
    engine = engine_for(servers, model)
    engine.sync_weights(HFWeights(model.lm), 1)
    with pytest.raises(UsageError, match=r"may take 130 tokens, more than the servers' max_model_len=128"):
        engine.generate([[1] * 30], Sampling(1.0, 1.0, 100), [0])
    (whole,) = engine.generate([[1] * 28], Sampling(1.0, 1.0, 100), [0])
    assert whole.finish_reason == "stop" or len(whole.token_ids) == 100
    engine.close()


@pytest.mark.timeout(600)
def test_syncs_with_servers_that_stand_still_die_and_come_back(
    servers: list[Server], model: PolicyModel, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, (first, second) = engine_for(servers, model), servers
    engine.sync_weights(HFWeights(model.lm), 1)
    both, one = [first.url, second.url], [second.url]

    def sync(version: int, during: Callable[[], None] = lambda: None) -> list[str]:
        """Sync while something happens; it must not take the time-out of 60 s."""

        def weights() -> Iterator[tuple[str, Any]]:
            for number, pair in enumerate(HFWeights(model.lm)):
                if number == 4:
                    during()
                yield pair

        disturb(model, seed=version)
        start = time.monotonic()
        engine.sync_weights(Repeated(weights), version)
        assert time.monotonic() - start < 45
        want = HFEngine(model, ProcessGroup()).generate(PROMPTS[:4], Sampling(0.0, 1.0, 8), KEYS[:4])
        assert tokens(engine.generate(PROMPTS[:4], Sampling(0.0, 1.0, 8), KEYS[:4])) == tokens(want)
        return [replica.url for replica in engine.live]

    os.killpg(first.process.pid, signal.SIGSTOP)
    assert sync(2) == one and sync(3) == one
    os.killpg(first.process.pid, signal.SIGCONT)
    assert sync(4) == both
    assert sync(5, lambda: os.killpg(first.process.pid, signal.SIGKILL)) == one
    said = capsys.readouterr().err
    assert f"ecrl: the server at {first.url} does not answer" in said
    assert f"ecrl: the server at {first.url} is left out: it did not receive the weights" in said
    first.process.wait()
    first.start()
    first.wait()
    assert sync(6) == both
    # Restarted between two syncs: the old channel must not be used.
    first.kill()
    first.start()
    first.wait()
    assert sync(7) == both
    engine.close()


@pytest.mark.timeout(600)
def test_what_is_open_goes_on_with_new_weights(servers: list[Server], model: PolicyModel) -> None:
    engine = engine_for(servers, model, max_in_flight=8)
    engine.sync_weights(HFWeights(model.lm), 1)
    old = copy.deepcopy(model)
    disturb(model, seed=5)
    engine.generate(PROMPTS, SAMPLING, KEYS)  # the first pass of a server takes long
    check_a_sync_in_mid_rollout(engine, PROMPTS, {1: old, 2: model})
    engine.close()


class Repeated:
    """Weights that can be iterated over again."""

    def __init__(self, make: Callable[[], Iterator[tuple[str, Any]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._make()


@pytest.mark.timeout(600)
def test_a_replica_killed_in_mid_rollout(servers: list[Server], model: PolicyModel) -> None:
    engine = engine_for(servers, model)
    engine.sync_weights(HFWeights(model.lm), 3)
    prompts, keys = PROMPTS * 8, list(range(8 * len(PROMPTS)))
    long = Sampling(1.0, 1.0, 100)
    start = time.monotonic()
    want = tokens(engine.generate(prompts, long, keys))
    undisturbed = time.monotonic() - start
    victim = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, time; time.sleep({undisturbed / 8}); os.kill({servers[0].process.pid}, 9)",
        ]
    )
    got = tokens(engine.generate(prompts, long, keys))
    victim.wait()
    servers[0].process.wait()
    assert got == want
    assert [r.url for r in engine.live] == [servers[1].url]
    # It goes on with the one that is left, also for weights, and takes the other in when it is back.
    disturb(model, seed=9)
    engine.sync_weights(HFWeights(model.lm), 4)
    assert [r.url for r in engine.live] == [servers[1].url]
    servers[0].start()
    servers[0].wait()
    engine.sync_weights(HFWeights(model.lm), 4)
    assert [r.url for r in engine.live] == [s.url for s in servers]
    greedy = Sampling(0.0, 1.0, 12)
    want = tokens(HFEngine(model, ProcessGroup()).generate(PROMPTS, greedy, KEYS))
    assert tokens(engine.generate(PROMPTS, greedy, KEYS)) == want


def test_a_replica_that_hangs_is_dropped(servers: list[Server], model: PolicyModel) -> None:
    engine = engine_for(servers, model)
    engine.sync_weights(HFWeights(model.lm), 1)
    want = tokens(engine.generate(PROMPTS, SAMPLING, KEYS))
    os.killpg(servers[0].process.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        assert tokens(engine.generate(PROMPTS, SAMPLING, KEYS)) == want
        assert time.monotonic() - start < 60
        assert [r.url for r in engine.live] == [servers[1].url]
    finally:
        os.killpg(servers[0].process.pid, signal.SIGCONT)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run(servers: list[Server], tiny_model: Path, tmp_path: Path, staleness: int) -> None:
    urls = ",".join(s.url for s in servers)
    base = [*TINY, f"model.path={tiny_model}", "iterations=3", "strategy=[importance_correction]"]
    base += ["eval.every=2", "eval.problems=2", "eval.k=2", f"rollout.staleness={staleness}"]
    server = ["engine=vllm_server", f"engine.urls=[{urls}]", "engine.dtype=float32"]
    rows = history(run(base, tmp_path / "run", *server))
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert rows[1]["mismatch/max"] < 1e-4 and rows[1]["policy/entropy"] > 1
    assert (rows[3]["mismatch/max"] > 1e-3) == bool(staleness)


@pytest.mark.timeout(1800)  # six processes on what may be two busy cores
def test_two_processes_draw_from_the_same_servers(
    servers: list[Server], tiny_model: Path, tmp_path: Path
) -> None:
    urls = ",".join(s.url for s in servers)
    base = [*TINY, f"model.path={tiny_model}", "iterations=2", "update.lr=1e-4", "rollout.staleness=1"]
    base += ["engine=vllm_server", f"engine.urls=[{urls}]", "engine.dtype=float32"]
    one = history(run(base, tmp_path / "one"))
    two = tmp_path / "two"
    many = ["trainer.devices=2", "trainer.accelerator=cpu", f"run_dir={two}"]
    subprocess.run([sys.executable, "-m", "ecrl", "train", *base, *many], check=True, timeout=900)
    for a, b in zip(one, history(two), strict=True):
        drawn = [name for name in a if name.startswith("rollout/")]
        assert [a[name] for name in drawn] == [b[name] for name in drawn]
        assert a["policy/entropy"] == pytest.approx(b["policy/entropy"], rel=1e-4)


def test_what_does_not_fit_the_policy_is_one_line(
    servers: list[Server], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = build_tokenizer()
    wider, swapped = tmp_path / "wider", tmp_path / "swapped"
    build_model(ModelConfig(hidden_size=128, layers=2, heads=2), tokenizer, seed=0).save_pretrained(wider)
    tokenizer.save_pretrained(wider)
    shutil.copytree(tiny_model, swapped)
    vocabulary = tokenizer.get_vocab()
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    other = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token="<eos>", pad_token="<pad>", unk_token=None)
    other.save_pretrained(swapped)
    start = time.monotonic()
    for path, words, message in [
        (wider, [], "serves a model with hidden_size=64, but the policy has 128"),
        (swapped, [], "another tokenizer: its token ids mean other texts"),
        (tiny_model, ["engine.dtype=bfloat16"], "serves float32, but engine.dtype=bfloat16"),
        (tiny_model, ["rollout.max_new_tokens=128"], "takes 128 tokens a sequence"),
        (tiny_model, ["rollout.max_new_tokens=64", "rollout.max_prompt_tokens=65"], "may have 129"),
    ]:
        base = ["engine=vllm_server", f"engine.urls=[{servers[0].url}]", "engine.dtype=float32"]
        run_dir = tmp_path / "run"
        assert main(["train", *base, f"model.path={path}", f"run_dir={run_dir}", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not run_dir.exists()
    assert time.monotonic() - start < 30


def test_all_dead_is_an_error_in_bounded_time(servers: list[Server], model: PolicyModel) -> None:
    engine = engine_for(servers, model)
    engine.sync_weights(HFWeights(model.lm), 1)
    for server in servers:
        server.kill()
    start = time.monotonic()
    with pytest.raises(EcrlError, match="No vLLM server is left to draw with"):
        engine.generate(PROMPTS, SAMPLING, KEYS)
    with pytest.raises(EcrlError, match="No vLLM server answers any more"):
        engine.sync_weights(HFWeights(model.lm), 2)
    assert time.monotonic() - start < 60
