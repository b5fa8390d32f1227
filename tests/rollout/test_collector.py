"""Completions: reproducible whatever the batch, exact log-probs, token ids end to end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ecrl.algorithm.objective import Objective
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine, StreamSampler
from ecrl.envs.safe_calls import make as make_env
from ecrl.errors import UsageError, usage_errors
from ecrl.metrics import MetricsRecorder
from ecrl.policy.attention import attention_mask
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.policy.packing import pack_micro_batches
from ecrl.rollout.batching import build_batch, split_minibatches
from ecrl.rollout.collector import Collector
from ecrl.rollout.trajectory import Trajectory
from tests.support.conformance import make_batch, make_module

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)
PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30], [40, 41]]


@pytest.fixture
def engine(tiny_model: Path) -> HFEngine:
    return HFEngine(load_policy(str(tiny_model), load_tokenizer(str(tiny_model))), ProcessGroup())


def collector(tiny_model: Path, env_id: str) -> Collector:
    tokenizer = load_tokenizer(str(tiny_model))
    policy = HFEngine(load_policy(str(tiny_model), tokenizer), ProcessGroup())
    return Collector(lambda split: make_env(env_id, split, {}), policy, tokenizer, seed=0)


def collect(source: Collector, problems: list[int], copies: int) -> list[Trajectory]:
    return source.collect("train", problems, copies, SAMPLING, 0, MetricsRecorder())


def test_a_completion_depends_on_its_own_key_only(engine: HFEngine) -> None:
    keys = [1, 2, 3, 4]
    together = engine.generate(PROMPTS, SAMPLING, keys)
    alone = [engine.generate([p], SAMPLING, [k])[0] for p, k in zip(PROMPTS, keys, strict=True)]
    backwards = engine.generate(PROMPTS[::-1], SAMPLING, keys[::-1])[::-1]
    engine.batch_size = 3
    split = engine.generate(PROMPTS, SAMPLING, keys)
    for other in (alone, backwards, split):
        assert [c.token_ids for c in other] == [c.token_ids for c in together]
        for a, b in zip(other, together, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert engine.generate(PROMPTS, SAMPLING, [5, 6, 7, 8])[0].token_ids != together[0].token_ids


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 1e-12]))
    count = 20000
    sampler = StreamSampler(range(count), SAMPLING)
    drawn = sampler(torch.zeros(count, 1), logits.expand(count, 4)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / count
    # Standard deviation of a share is at most 0.0036.
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=0.015)
    expected = -(0.5 * torch.log(torch.tensor(0.5)) + 0.3 * logits[1] + 0.2 * logits[2])
    assert float(sampler.entropy[0][0]) == pytest.approx(float(expected), abs=1e-6)


def test_temperature_and_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(5000, 3)
    nucleus = StreamSampler(range(5000), Sampling(1.0, 0.6, 1))
    drawn = nucleus(torch.zeros(5000, 1), logits).argmax(-1)
    shares = torch.bincount(drawn, minlength=3) / 5000
    assert shares.tolist() == pytest.approx([0.625, 0.375, 0.0], abs=0.03)
    # Log-probs are those of the whole vocabulary, so that the policy can be compared with itself.
    assert float(nucleus.logprobs[0].max()) == pytest.approx(float(logits[0, 0]), abs=1e-6)
    cold = StreamSampler([0], Sampling(0.5, 1.0, 1))
    cold(torch.zeros(1, 1), logits[:1])
    # p ∝ p^(1/T): 0.25, 0.09, 0.04 over 0.38
    entropy = -sum(p / 0.38 * torch.log(torch.tensor(p / 0.38)) for p in (0.25, 0.09, 0.04))
    assert float(cold.entropy[0]) == pytest.approx(float(entropy), abs=1e-6)


def test_greedy_equals_transformers(engine: HFEngine) -> None:
    model = engine.model
    (got,) = engine.generate([PROMPTS[1]], Sampling(0.0, 1.0, 8), [0])
    plain = model.lm.generate(
        input_ids=torch.tensor([PROMPTS[1]]),
        attention_mask=torch.ones(1, 6, dtype=torch.long),
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=8, eos_token_id=model.eos_ids, pad_token_id=model.pad_id
        ),
    )
    assert got.token_ids == plain[0, 6:].tolist()


def test_known_log_probs_equal_recomputed_ones(tiny: Callable[..., Config], tiny_model: Path) -> None:
    module = make_module(tiny(), [])
    source = collector(tiny_model, "tests.support.tasks:test/Digits-v0")
    source.engine = HFEngine(module.model, ProcessGroup())
    assert source.engine.logprobs_exact
    batch = build_batch(collect(source, [0, 1, 2, 3], 4), Objective(), iteration=0)
    logprobs, entropy = module.scorer.score(batch)
    assert torch.allclose(batch.old_logprobs, logprobs, atol=1e-5)
    assert torch.allclose(batch.old_entropy, entropy, atol=1e-5)


def test_a_problem_is_the_same_however_many_are_drawn(tiny_model: Path) -> None:
    source = collector(tiny_model, "tests.support.tasks:test/Digits-v0")
    many = collect(source, [0, 1, 2, 3], 2)
    one = collect(source, [2], 2)
    assert [t.prompt for t in one] == [t.prompt for t in many[4:6]]
    assert [t.response for t in one] == [t.response for t in many[4:6]]
    assert len({t.prompt for t in many}) == 4


def test_turns_of_the_environment_are_context(tiny: Callable[..., Config], tiny_model: Path) -> None:
    source = collector(tiny_model, "tests.support.tasks:test/Echo-v0")
    trajectories = collect(source, [0, 1], 3)
    tokenizer = load_tokenizer(str(tiny_model))
    batch = build_batch(trajectories, Objective(), iteration=0)
    for sequence, trajectory in zip(batch.sequences, trajectories, strict=True):
        assert len(trajectory.turns) == 2
        context = [t for t, own in zip(sequence.response_ids, sequence.own, strict=True) if not own]
        assert tokenizer.decode(context) == "\nagain\n"
    assert batch.lengths.tolist() == [t.num_tokens for t in trajectories]
    module = make_module(tiny(), [])
    source.engine = HFEngine(module.model, ProcessGroup())
    batch = build_batch(collect(source, [0, 1], 3), Objective(), iteration=0)
    # The engine read exactly the ids that scoring reads: the log-probs agree over both turns.
    assert torch.allclose(batch.old_logprobs, module.scorer.score(batch)[0], atol=1e-5)


SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
#: All layers, or the second one of two, see three tokens back.
NEAR = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
ARCHITECTURES = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES)),
    "qwen2-windows": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, **NEAR)),
    "qwen3-windows": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, **NEAR, head_dim=8)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)),
}


@pytest.fixture(params=ARCHITECTURES)
def lm(request: pytest.FixtureRequest) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: PreTrainedModel = ARCHITECTURES[request.param]()
    return made


def test_packed_rows_score_like_single_sequences(lm: PreTrainedModel, tiny: Callable[..., Config]) -> None:
    config = tiny()
    batch = make_batch(make_module(config, []))
    model = PolicyModel(lm.eval(), eos_ids=[1], pad_id=0)
    model.check_head()
    results = []
    for row_tokens in (0, 64, 256):
        logprobs = torch.zeros(batch.num_tokens)
        for micro_batch in pack_micro_batches(batch.sequences, 10**6, row_tokens):
            with torch.no_grad():
                logprobs[micro_batch.order] = model(micro_batch, 1.0)[0]
        results.append(logprobs)
    assert torch.allclose(results[0], results[1], atol=1e-5)
    assert torch.allclose(results[0], results[2], atol=1e-5)
    # And like the model itself, one sequence at a time.
    start = 0
    for sequence in batch.sequences:
        ids = torch.tensor([sequence.prompt_ids + sequence.response_ids])
        with torch.no_grad():
            reference = lm(input_ids=ids).logits[0].log_softmax(-1)
        for step, token in enumerate(sequence.response_ids):
            position = len(sequence.prompt_ids) - 1 + step
            assert float(results[0][start]) == pytest.approx(float(reference[position, token]), abs=1e-5)
            start += 1


def test_layouts_respect_the_budget_and_cover_every_token(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    for max_tokens, row_tokens in [(10**6, 256), (64, 64), (40, 256), (20, 0)]:
        micro_batches = pack_micro_batches(batch.sequences, max_tokens, row_tokens)
        assert all(micro_batch.input_ids.numel() <= max_tokens for micro_batch in micro_batches)
        order = torch.cat([micro_batch.order for micro_batch in micro_batches])
        assert torch.equal(order.sort().values, torch.arange(batch.num_tokens))
        targets = torch.cat([micro_batch.targets for micro_batch in micro_batches])
        assert torch.equal(targets, batch.token_ids[order])


@pytest.mark.parametrize("size", [2, 3, 7])
def test_processes_share_tokens_and_make_equally_many_passes(size: int, tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    for max_tokens, row_tokens in [(10**6, 256), (40, 30), (25, 0)]:
        shares = [
            pack_micro_batches(batch.sequences, max_tokens, row_tokens, rank, size) for rank in range(size)
        ]
        assert len({len(share) for share in shares}) == 1
        order = torch.cat([micro_batch.order for share in shares for micro_batch in share])
        assert torch.equal(order.sort().values, torch.arange(batch.num_tokens))
        loads = [sum(int((x.prompt_group >= 0).sum()) for x in share if len(x.order)) for share in shares]
        longest = max(len(s) for s in batch.sequences) if row_tokens < 100 else 60
        assert max(loads) - min(loads) <= longest


def test_both_masks_show_a_token_its_own_prompt_and_branch(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    random = torch.Generator().manual_seed(0)
    cpu = torch.device("cpu")
    for row_tokens, window in product((0, 64), (None, 4)):
        for micro_batch in pack_micro_batches(batch.sequences, 10**6, row_tokens):
            rows, length = micro_batch.input_ids.shape
            rule = torch.zeros(rows, 1, length, length, dtype=torch.bool)
            for r, q, k in product(range(rows), range(length), range(length)):
                same_group = micro_batch.prompt_group[r, q] == micro_batch.prompt_group[r, k]
                seen = micro_batch.response_index[r, k] in (0, micro_batch.response_index[r, q])
                near = (
                    window is None or micro_batch.position_ids[r, q] - micro_batch.position_ids[r, k] < window
                )
                rule[r, 0, q, k] = same_group and seen and near and q >= k
            dense = attention_mask(micro_batch, "sdpa", cpu, window)
            if dense.dim() == 4:
                assert torch.equal(dense, rule)
            q, k, v = torch.randn(3, rows, 2, length, 16, generator=random)
            sparse = flex_attention(
                q, k, v, block_mask=attention_mask(micro_batch, "flex_attention", cpu, window)
            )
            expected = scaled_dot_product_attention(q, k, v, attn_mask=rule)
            assert torch.allclose(sparse, expected, atol=1e-5)


def test_a_budget_below_one_sequence_is_refused(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    says = r"update\.max_tokens=9 cannot hold a sequence of \d+ tokens"
    with pytest.raises(UsageError, match=says), usage_errors("update."):
        pack_micro_batches(batch.sequences, 9, 256)


def test_minibatches_partition_the_groups(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    parts = list(split_minibatches(batch, minibatches=4, epochs=2, seed=0, iteration=0))
    assert [p.fresh for p in parts] == [True] + [False] * 7
    for epoch in (parts[:4], parts[4:]):
        assert sorted(u for p in epoch for u in p.uid.tolist()) == sorted(batch.uid.tolist())
        assert all(len(p) % 4 == 0 for p in epoch)  # whole groups
    assert torch.equal(torch.cat([p.uid for p in parts[:4]]), batch.uid)
    assert not torch.equal(torch.cat([p.uid for p in parts[4:]]), batch.uid)
