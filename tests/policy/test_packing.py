"""Packing: budgets, shares of processes, and rows that score like single sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import (
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

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.config.schema import Config
from ecrl.errors import UsageError, usage_errors
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import BLOCK, pack_micro_batches
from tests.support.conformance import make_batch, make_module

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


def test_what_no_scored_token_needs_is_not_computed() -> None:
    """The last own token and what follows it predict nothing; an earlier turn is read by the next."""
    sequences = [
        SequenceTokens([5, 6], [10, 11, 12], [True] * 3),
        SequenceTokens([5, 6], [20], [True]),
        SequenceTokens([7], [30, 31, 32, 33, 34], [True, False, True, False, False]),
    ]
    (micro_batch,) = pack_micro_batches(sequences, 64, 4)
    assert micro_batch.input_ids.tolist() == [[5, 6, 10, 11], [7, 30, 31, 0]]
    assert micro_batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert micro_batch.response_index.tolist() == [[0, 0, 1, 1], [0, 1, 1, 0]]
    assert micro_batch.source.tolist() == [1, 2, 3, 1, 4, 6]
    assert micro_batch.targets.tolist() == [10, 11, 12, 20, 30, 32]


def test_rows_of_a_pass_are_evened_out() -> None:
    sequences = [SequenceTokens([prompt], [9] * 20, [True] * 20) for prompt in range(12)]
    (micro_batch,) = pack_micro_batches(sequences, 1000, 100)  # five of 20 fit in a row
    assert micro_batch.input_ids.shape == (3, 80)
    assert bool((micro_batch.prompt_group >= 0).all())


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
        largest = min(row_tokens, 60) or max(len(s) for s in batch.sequences)  # of what is divided
        assert max(loads) - min(loads) <= largest


@pytest.mark.parametrize(("max_tokens", "row_tokens"), [(20480, 20480), (16384, 2048)])
def test_bucketed_passes_have_few_shapes_and_little_padding(max_tokens: int, row_tokens: int) -> None:
    """Over minibatches of 256 responses with a long tail of lengths, as those of a mathematical task."""
    random = np.random.default_rng(0)
    shapes, passed, real = set(), 0, 0
    for _ in range(20):
        lengths = np.minimum(random.lognormal(6.5, 0.8, 256), 8192 if row_tokens > 8192 else 1024).astype(int)
        prompts = [[group] * int(random.integers(100, 400)) for group in range(32)]
        sequences = [
            SequenceTokens(prompts[i // 8], [1] * n, [True] * n) for i, n in enumerate(lengths.tolist())
        ]
        for micro_batch in pack_micro_batches(sequences, max_tokens, row_tokens, bucketed=True):
            shapes.add(micro_batch.input_ids.shape)
            passed += micro_batch.input_ids.numel()
            real += int((micro_batch.prompt_group >= 0).sum())
            assert micro_batch.input_ids.numel() <= max_tokens
    assert len(shapes) <= 12
    assert real > 0.88 * passed


@pytest.mark.parametrize("size", [1, 3])
def test_bucketed_passes_score_the_same(size: int, tiny: Callable[..., Config]) -> None:
    module = make_module(tiny(), [])
    batch = make_batch(module)
    results = []
    for bucketed in (False, True):
        logprobs = torch.zeros(batch.num_tokens)
        for rank in range(size):
            for micro_batch in pack_micro_batches(batch.sequences, 900, 130, rank, size, bucketed):
                with torch.no_grad():
                    logprobs[micro_batch.order] = module.model(micro_batch, 1.0)[0]
                rows, length = micro_batch.input_ids.shape
                assert not bucketed or (length % BLOCK == 0 and rows & (rows - 1) == 0)
        results.append(logprobs)
    assert results[0].abs().min() > 0
    assert torch.allclose(*results, atol=1e-5)


def test_a_budget_below_one_sequence_is_refused(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    says = r"update\.max_tokens=9 cannot hold a sequence of \d+ tokens"
    with pytest.raises(UsageError, match=says), usage_errors("update."):
        pack_micro_batches(batch.sequences, 9, 256)
