"""Real vLLM servers that split each layer over two worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ecrl.config.schema import LoraConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.engines.vllm.server import VLLMServerEngine
from ecrl.errors import EcrlError
from ecrl.policy.lora import add_adapters
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.policy.tiny_model import build_tokenizer
from ecrl.policy.weights import HFWeights
from tests.support.processes import session_processes
from tests.support.vllm_servers import Server, disturb, free_port, move_adapters, tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30, 5], [40, 41]] * 2
KEYS = list(range(len(PROMPTS)))
GREEDY, SAMPLING = Sampling(0.0, 1.0, 12), Sampling(1.0, 1.0, 12)


def grouped(kv_heads: int, vocabulary: int) -> PreTrainedModel:
    """Four query heads of size 32, biases, and a vocabulary that 64 does not divide."""
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        tie_word_embeddings=kv_heads == 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(kv_heads)
        return Qwen2ForCausalLM(config)


@pytest.fixture(scope="module", params=[2, 1], ids=["two key heads", "one key head"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With one key head both workers hold it."""
    path, tokenizer = tmp_path_factory.mktemp("grouped"), build_tokenizer()
    grouped(request.param, len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    started = Server(path, free_port(), "tensor_parallel_size=2", "model.lora.r=4")
    started.wait()
    yield started
    started.kill()


def test_two_workers_draw_with_adapters_and_prove_them(server: Server) -> None:
    path: Path = server.model
    model = load_policy(str(path), load_tokenizer(str(path)))
    add_adapters(model.lm, LoraConfig(r=4))
    engine = VLLMServerEngine(model, ProcessGroup(), urls=[server.url], dtype="float32", timeout=60.0)
    for version in (1, 2):
        move_adapters(model, seed=version)
        engine.sync_weights(HFWeights(model.lm), version)
        got, want = (e.generate(PROMPTS, GREEDY, KEYS) for e in (engine, HFEngine(model, ProcessGroup())))
        assert tokens(got) == tokens(want)
        for a, b in zip(got, want, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    engine.manifest.sums["model.layers.1.mlp.down_proj.lora_A.weight"] += 1
    with pytest.raises(EcrlError, match=r"version 2: .*\.1\.mlp\.down_proj\.lora_A\.weight \(1 of"):
        engine.confirm(2)


def connected(server: Server) -> tuple[VLLMServerEngine, PolicyModel]:
    path: Path = server.model
    model = load_policy(str(path), load_tokenizer(str(path)))
    urls = [server.url]
    return VLLMServerEngine(model, ProcessGroup(), urls=urls, dtype="float32", timeout=60.0), model


def test_two_workers_draw_as_the_policy_and_prove_their_weights(server: Server) -> None:
    engine, model = connected(server)
    reference = HFEngine(model, ProcessGroup())
    # The server itself, its engine, and two workers.
    assert len(session_processes(server.process.pid)) >= 4
    for version in (1, 2):
        disturb(model, seed=version)
        engine.sync_weights(HFWeights(model.lm), version)
        got, want = (e.generate(PROMPTS, GREEDY, KEYS) for e in (engine, reference))
        assert tokens(got) == tokens(want)
        for a, b in zip(got, want, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    drawn = tokens(engine.generate(PROMPTS, SAMPLING, KEYS))
    assert tokens(engine.generate(PROMPTS[::-1], SAMPLING, KEYS[::-1])[::-1]) == drawn
    engine.manifest.sums["model.layers.1.mlp.down_proj.weight"] += 1
    with pytest.raises(EcrlError, match=r"version 2: model\.layers\.1\.mlp\.down_proj\.weight \(1 of"):
        engine.confirm(2)
