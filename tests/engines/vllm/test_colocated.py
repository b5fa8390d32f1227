"""The colocated engine against transformers and the trainer, on two architectures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Request, Sampling
from ecrl.engines.hf import HFEngine
from ecrl.engines.vllm.colocated import VLLMEngine
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.model import PolicyModel

pytestmark = pytest.mark.slow

PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30], [40, 41]]
KEYS = [2**64 - 1, 2**63, 3, 4]
GREEDY, RANDOM = Sampling(0.0, 1.0, 12), Sampling(1.0, 1.0, 12)
VERSIONS = count(1)
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
}


def qwen2() -> PreTrainedModel:
    """Biases in the attention, a tied head."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, **heads, tie_word_embeddings=True))


def llama() -> PreTrainedModel:
    """Fewer key heads than query heads, a head of its own."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **heads))


@pytest.fixture(scope="module", params=[qwen2, llama], ids=lambda make: make.__name__)
def engine(request: pytest.FixtureRequest) -> Iterator[VLLMEngine]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = request.param().eval()
    vllm = VLLMEngine(PolicyModel(lm, eos_ids=[1, 50], pad_id=0), ProcessGroup(), kv_cache_gib=0.25)
    yield vllm
    vllm.close()


@pytest.fixture
def synced(engine: VLLMEngine) -> VLLMEngine:
    """Holds other weights than in any test before."""
    load(engine, next(VERSIONS))
    return engine


def load(engine: VLLMEngine, version: int) -> None:
    update(engine.model, seed=version)
    engine.sync_weights(weights(engine), version)


def weights(engine: VLLMEngine) -> Iterator[tuple[str, Tensor]]:
    return iter(engine.model.lm.named_parameters())


@torch.no_grad()
def update(model: PolicyModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        center = 1.0 if parameter.dim() == 1 else 0.0
        parameter.copy_(center + 0.1 * torch.randn(parameter.shape, generator=generator))


def draw(engine: Any, sampling: Sampling) -> list[Completion]:
    return list(engine.generate(PROMPTS, sampling, KEYS))


def tokens(completions: list[Completion]) -> list[list[int]]:
    return [c.token_ids for c in completions]


def test_nothing_is_drawn_before_the_first_weights(engine: VLLMEngine) -> None:
    with pytest.raises(EcrlError, match="holds no weights"):
        draw(engine, GREEDY)


def test_greedy_equals_transformers_before_and_after_an_update(synced: VLLMEngine) -> None:
    reference = HFEngine(synced.model, ProcessGroup())
    seen = []
    for _ in range(2):
        got, expected = draw(synced, GREEDY), draw(reference, GREEDY)
        assert tokens(got) == tokens(expected)
        assert [c.finish_reason for c in got] == [c.finish_reason for c in expected]
        for a, b in zip(got, expected, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert a.weights_version == synced.version
        seen.append(tokens(got))
        load(synced, next(VERSIONS))
    assert seen[0] != seen[1]


def test_the_prefix_cache_is_shared_by_copies_and_dropped_with_the_weights(synced: VLLMEngine) -> None:
    # Longer than a block of the cache, which holds 128 tokens on CPU.
    prompt = torch.randint(2, 97, (150,), generator=torch.Generator().manual_seed(0)).tolist()
    for _ in range(2):
        first, *copies = synced.generate([prompt] * 3, GREEDY, range(3))
        (expected,) = HFEngine(synced.model, ProcessGroup()).generate([prompt], GREEDY, [0])
        assert {tuple(c.token_ids) for c in [first, *copies]} == {tuple(expected.token_ids)}
        assert first.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        (output,) = synced._llm.generate([{"prompt_token_ids": prompt}], use_tqdm=False)
        assert output.num_cached_tokens == 128
        load(synced, next(VERSIONS))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_are_the_policys_at_the_temperature(synced: VLLMEngine, temperature: float) -> None:
    lm: Any = synced.model.lm
    for prompt, completion in zip(PROMPTS, draw(synced, Sampling(temperature, 1.0, 12)), strict=True):
        with torch.no_grad():
            logits = lm(input_ids=torch.tensor([prompt + completion.token_ids])).logits[0]
        scored = (logits / temperature).log_softmax(-1)[len(prompt) - 1 : -1]
        expected = scored.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-5)
        assert completion.entropy is None


@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, 0), (1.0, 5), (0.7, 5)])
def test_log_probs_are_those_of_what_is_left_to_draw_from(
    synced: VLLMEngine, top_p: float, top_k: int
) -> None:
    lm: Any = synced.model.lm
    for prompt, completion in zip(PROMPTS, draw(synced, Sampling(0.9, top_p, 12, top_k)), strict=True):
        with torch.no_grad():
            logits = lm(input_ids=torch.tensor([prompt + completion.token_ids])).logits[0]
        probs = (logits / 0.9).softmax(-1)[len(prompt) - 1 : -1]
        for row, token, logprob in zip(probs, completion.token_ids, completion.logprobs, strict=True):
            ordered, index = row.sort(descending=True)
            ordered = ordered[: top_k or None] / ordered[: top_k or None].sum()
            kept = ordered[ordered.cumsum(0) - ordered < top_p]
            place = index.tolist().index(token)
            assert place < len(kept)
            assert logprob == pytest.approx(float((kept[place] / kept.sum()).log()), abs=1e-5)


def test_a_completion_depends_on_its_own_key_only(synced: VLLMEngine) -> None:
    together = tokens(draw(synced, RANDOM))
    alone = [tokens(synced.generate([p], RANDOM, [k]))[0] for p, k in zip(PROMPTS, KEYS, strict=True)]
    backwards = tokens(synced.generate(PROMPTS[::-1], RANDOM, KEYS[::-1]))[::-1]
    crowd = tokens(synced.generate(PROMPTS * 8, RANDOM, [*KEYS, *range(100, 128)]))[:4]
    assert together == alone == backwards == crowd
    copies = synced.generate([PROMPTS[0]] * 16, RANDOM, range(16))
    assert len({tuple(c.token_ids) for c in copies}) > 12  # an early EOS may be drawn twice


def test_completions_stop_at_the_policys_own_eos(synced: VLLMEngine) -> None:
    completions = synced.generate(PROMPTS * 64, Sampling(1.5, 1.0, 24), range(256))
    eos = synced.model.eos_ids
    stopped = [c for c in completions if c.finish_reason == "stop"]
    assert {c.token_ids[-1] for c in stopped} == set(eos)
    assert not any(t in eos for c in stopped for t in c.token_ids[:-1])
    cut = [c for c in completions if c.finish_reason == "length"]
    assert cut and all(len(c.token_ids) == 24 and not set(c.token_ids) & set(eos) for c in cut)


def test_requests_come_and_go_while_others_are_open(synced: VLLMEngine) -> None:
    want = tokens(draw(synced, RANDOM))
    requests = [Request(i, p, k, RANDOM) for i, (p, k) in enumerate(zip(PROMPTS, KEYS, strict=True))]
    synced.submit([Request(9, PROMPTS[0], 7, Sampling(1.0, 1.0, 200)), requests[3]])
    done = dict(synced.poll())
    synced.submit(requests[:3])
    while not done.keys() >= {0, 1, 2, 3}:
        done.update(synced.poll())
    assert tokens([done[i] for i in range(4)]) == want
    synced.submit([Request(10, PROMPTS[1], 8, Sampling(1.0, 1.0, 200))])
    synced.cancel()
    assert synced.poll() == [] and not synced._llm.llm_engine.has_unfinished_requests()
    assert tokens(draw(synced, RANDOM)) == want


def test_nothing_is_drawn_for_nothing(synced: VLLMEngine) -> None:
    assert synced.generate([], RANDOM, []) == []


def test_a_version_that_it_holds_is_not_sent_again(synced: VLLMEngine) -> None:
    source = weights(synced)
    synced.sync_weights(source, synced.version or 0)
    assert len(list(source)) == len(list(weights(synced)))


def test_sleep_and_wake(synced: VLLMEngine) -> None:
    version, before = synced.version or 0, tokens(draw(synced, RANDOM))
    synced.sleep()
    synced.wake()
    synced.sync_weights(weights(synced), version)
    assert tokens(draw(synced, RANDOM)) == before


def test_autocast_around_it_changes_nothing(synced: VLLMEngine) -> None:
    """Lightning draws and syncs under autocast; the probe compares what is computed outside."""
    outside = draw(synced, RANDOM)
    with torch.autocast("cpu", torch.bfloat16):
        assert draw(synced, RANDOM) == outside
        assert torch.equal(synced._probe_logprobs(), synced._probe_logprobs())
        load(synced, next(VERSIONS))
        inside = draw(synced, RANDOM)
    synced.confirm(synced.version or 0)
    assert draw(synced, RANDOM) == inside != outside


def test_the_kv_cache_is_allocated_after_the_weights_arrived(
    synced: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPU vLLM keeps the memory, but it keeps account of what sleeps."""
    version, before = synced.version or 0, tokens(draw(synced, RANDOM))
    monkeypatch.setattr(synced, "_can_sleep", True)
    asleep: list[set[str]] = []

    def note() -> None:
        asleep.append(set(synced._executor.sleeping_tags))

    def arriving() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights(synced):
            note()
            yield name, tensor

    synced.sleep()
    note()
    synced.wake()
    synced.sync_weights(arriving(), version)
    note()
    first, *meanwhile, last = asleep
    assert first == {"weights", "kv_cache"} and last == set()
    assert meanwhile and all(tags == {"kv_cache"} for tags in meanwhile)
    assert tokens(draw(synced, RANDOM)) == before


@pytest.mark.parametrize(
    ("held", "row", "named"),
    [
        ("model.layers.1.self_attn.qkv_proj.weight", -1, "model.layers.1.self_attn.v_proj.weight"),
        ("model.layers.0.mlp.gate_up_proj.weight", 0, "model.layers.0.mlp.gate_proj.weight"),
        ("model.norm.weight", 5, "model.norm.weight"),
        ("model.embed_tokens.weight", 96, "model.embed_tokens.weight"),
    ],
)
def test_a_corrupted_weight_is_named(synced: VLLMEngine, held: str, row: int, named: str) -> None:
    synced.confirm(synced.version or 0)

    def corrupt(worker: Any) -> None:
        worker.model_runner.get_model().get_parameter(held).data[row].view(-1)[0] += 1e-4

    synced._llm.collective_rpc(corrupt)
    with pytest.raises(EcrlError, match=rf"version \d+: {named} \(1 of"):
        synced.confirm(synced.version or 0)


def test_stale_weights_under_a_new_version_are_refused(synced: VLLMEngine) -> None:
    old = [(name, tensor.clone()) for name, tensor in weights(synced)]
    update(synced.model, seed=0)
    # The engine holds exactly what it was sent, but that is not what the trainer has.
    with pytest.raises(EcrlError, match=r"other weights than version 77: .* nats from the trainer's"):
        synced.sync_weights(old, 77)
    with pytest.raises(EcrlError, match="holds no weights"):
        draw(synced, RANDOM)


@pytest.mark.parametrize("part", ["self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm"])
def test_a_weight_that_is_not_sent_is_named(synced: VLLMEngine, part: str) -> None:
    missing = f"model.layers.1.{part}.weight"
    update(synced.model, seed=0)
    with pytest.raises(EcrlError, match=f"did not bring: {missing}"):
        synced.sync_weights(((n, t) for n, t in weights(synced) if n != missing), 78)


def test_what_it_cannot_draw_is_refused(synced: VLLMEngine) -> None:
    with pytest.raises(UsageError, match=r"257 tokens, more than engine\.max_model_len=256"):
        synced.generate([[5] * 6], Sampling(1.0, 1.0, 251), [0])
