"""Adapters go to real vLLM servers on their own; the weights below them once."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ecrl.config.schema import LoraConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.engines.vllm.adapters import engine_arguments
from ecrl.engines.vllm.server import VLLMServerEngine
from ecrl.engines.vllm.weight_channel import Sender
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.lora import add_adapters
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.policy.weights import HFWeights
from tests.support.runs import history, run
from tests.support.tiny import TINY
from tests.support.vllm_servers import (
    Server,
    check_a_sync_in_mid_rollout,
    free_port,
    move_adapters,
    tokens,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GREEDY = Sampling(0.0, 1.0, 12)
#: The long ones fill a block of the prefix cache, which must not outlive the adapter.
PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30, 5], list(range(2, 52)) * 4, list(range(5, 50)) * 5]
KEYS = list(range(len(PROMPTS)))


@pytest.fixture(scope="module")
def servers(tiny_model: Path) -> Iterator[list[Server]]:
    settings = ("model.lora.r=4", "max_model_len=320")
    started = [Server(tiny_model, free_port(), *settings) for _ in range(2)]
    for server in started:
        server.wait()
    yield started
    for server in started:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of the tensors that went over the channel, sync by sync."""
    counts: list[int] = []
    send, send_bytes = Sender.send, Sender._send_bytes

    def counting(sender: Sender, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        counts.append(0)
        send(sender, weights)

    def counting_bytes(sender: Sender, raw: torch.Tensor) -> None:
        counts[-1] += raw.nbytes
        send_bytes(sender, raw)

    monkeypatch.setattr(Sender, "send", counting)
    monkeypatch.setattr(Sender, "_send_bytes", counting_bytes)
    return counts


def adapted(path: Path, config: LoraConfig) -> PolicyModel:
    model = load_policy(str(path), load_tokenizer(str(path)))
    add_adapters(model.lm, config)
    return model


def engine_for(servers: list[Server], model: PolicyModel) -> VLLMServerEngine:
    urls = [server.url for server in servers]
    return VLLMServerEngine(model, ProcessGroup(), urls=urls, dtype="float32", max_in_flight=8, timeout=60.0)


def size(weights: HFWeights) -> int:
    return sum(tensor.nbytes for _, tensor in weights)


def check(engine: VLLMServerEngine, model: PolicyModel, version: int) -> None:
    """The servers draw with these adapters what the policy draws."""
    move_adapters(model, seed=version)
    engine.sync_weights(HFWeights(model.lm), version)
    got = engine.generate(PROMPTS, GREEDY, KEYS)
    want = HFEngine(model, ProcessGroup()).generate(PROMPTS, GREEDY, KEYS)
    assert tokens(got) == tokens(want)
    for a, b in zip(got, want, strict=True):
        assert a.weights_version == version and a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_each_sync_sends_the_adapters_and_the_first_one_the_rest(
    servers: list[Server], tiny_model: Path, sent: list[int]
) -> None:
    model = adapted(tiny_model, LoraConfig(r=4, alpha=6.0))
    engine, weights = engine_for(servers, model), HFWeights(model.lm)
    adapters = size(weights.apart(base=False))
    for version in (1, 2, 3):
        check(engine, model, version)
    assert sent == [size(weights) + adapters, adapters, adapters]
    assert 10 * adapters < size(weights)
    # What a server holds is proven as before.
    engine.manifest.sums["model.layers.1.self_attn.v_proj.lora_B.weight"] += 1
    with pytest.raises(EcrlError, match=r"version 3: model\.layers\.1\.self_attn\.v_proj\.lora_B\.weight"):
        engine.confirm(3)
    engine.close()


def test_a_server_that_comes_back_gets_everything(
    servers: list[Server], tiny_model: Path, sent: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = adapted(tiny_model, LoraConfig(r=3, target_modules=["q_proj", "down_proj"]))
    engine, weights = engine_for(servers, model), HFWeights(model.lm)
    adapters = size(weights.apart(base=False))
    check(engine, model, 1)
    servers[0].kill()
    servers[0].start()
    servers[0].wait()
    check(engine, model, 2)
    check(engine, model, 3)
    assert [replica.url for replica in engine.live] == [server.url for server in servers]
    whole = size(weights) + adapters
    assert sent == [whole, whole, adapters]
    # A rank of 9 is beyond what the servers were started for, which vLLM rounds up to 8.
    wide = adapted(tiny_model, LoraConfig(r=9))
    merging = engine_for(servers, wide)
    capsys.readouterr()
    check(merging, wide, 1)
    check(merging, wide, 2)
    said = capsys.readouterr().err
    assert said.count("adapters are merged into whole weights at each sync") == said.count("\n") == 1
    assert "model.lora.r=9" in said
    assert sent[3:] == [size(HFWeights(wide.lm))] * 2
    merging.close()
    check(engine, model, 4)
    assert sent[-1] == whole  # after a channel that the other run has closed
    engine.close()


def test_ranks_are_those_of_vllm() -> None:
    assert [engine_arguments(rank)["max_lora_rank"] for rank in (1, 2, 8, 9, 512)] == [1, 8, 8, 16, 512]
    with pytest.raises(UsageError, match=r"model\.lora\.r=513 .* a rank of up to 512; leave it out"):
        engine_arguments(513)


def test_what_is_open_goes_on_with_the_new_adapters(servers: list[Server], tiny_model: Path) -> None:
    model = adapted(tiny_model, LoraConfig(r=4))
    move_adapters(model, seed=1)
    engine = engine_for(servers, model)
    engine.sync_weights(HFWeights(model.lm), 1)
    old = copy.deepcopy(model)
    move_adapters(model, seed=2)
    engine.generate(PROMPTS, GREEDY, KEYS)  # the first pass of a server takes long
    check_a_sync_in_mid_rollout(engine, PROMPTS[:3], {1: old, 2: model})
    engine.close()


@pytest.mark.timeout(1800)  # six processes on what may be two busy cores
def test_two_processes_train_adapters_on_partial_rollouts(
    servers: list[Server], tiny_model: Path, tmp_path: Path
) -> None:
    urls = ",".join(server.url for server in servers)
    base = [
        *TINY,
        f"model.path={tiny_model}",
        "model.lora.r=4",
        "update.lr=1e-2",
        "rollout.max_new_tokens=64",
    ]
    base += [
        "rollout.staleness=1",
        "strategy=[importance_correction]",
        "iterations=2",
        "rollout.max_new_tokens=64",
    ]
    # So few that much of the second rollout waits for the first, and is open when that is trained on.
    base += ["engine=vllm_server", f"engine.urls=[{urls}]", "engine.dtype=float32", "engine.max_in_flight=2"]
    one, two = history(run(base, tmp_path / "one")), tmp_path / "two"
    many = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.parallel=fsdp", "rollout.partial=true"]
    for words in ([*base, *many, f"run_dir={two}"], [f"resume={two}", "iterations=4"]):
        subprocess.run([sys.executable, "-m", "ecrl", "train", *words], check=True, timeout=800)
    rows = history(two)
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4]
    assert [row["rollout/completions"] for row in rows] == [32] * 4
    # The first weights drew the first rollout alone, so it does not depend on time.
    drawn = [name for name in one[0] if name.startswith("rollout/")]
    assert [rows[0][name] for name in drawn] == [one[0][name] for name in drawn]
    assert rows[0]["rollout/partial"] == 0 and rows[0]["mismatch/max"] < 1e-3
    assert max(row["rollout/partial"] for row in rows) > 0
