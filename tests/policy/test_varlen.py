"""Varlen attention in the model, with a stand-in for its GPU kernel: it agrees with the dense mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import flex_attention
from transformers import Qwen2Config

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.policy import flex, varlen
from ecrl.policy.attention import choose_attention, shares_prompts
from ecrl.policy.decoder_layers import checkpoint_layers, compile_layers
from ecrl.policy.flex import FLEX
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.policy.packing import BLOCK, MicroBatch, pack_micro_batches
from ecrl.policy.varlen import VARLEN
from tests.support import varlen_kernel
from tests.support.conformance import make_batch, make_module

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True, scope="module")
def _stand_in() -> None:
    varlen_kernel.register()


def ragged() -> list[SequenceTokens]:
    """Sequences of 2 to 90 tokens, four to each prompt."""
    random = np.random.default_rng(0)
    draw: Callable[[int], list[int]] = lambda n: random.integers(3, 90, n).tolist()  # noqa: E731
    prompts = [draw(int(n)) for n in random.integers(1, 30, 5)]
    lengths = random.integers(1, 60, 20).tolist()
    return [SequenceTokens(prompts[i // 4], draw(n), [True] * n) for i, n in enumerate(lengths)]


def outcome(model: PolicyModel, attention: str, passes: list[MicroBatch]) -> list[Tensor]:
    """Log-probs and entropies of all tokens, then the gradients."""
    model.attention = attention
    model.zero_grad()
    joint = torch.zeros(2, sum(len(m.order) for m in passes))
    for micro_batch in passes:
        logprobs, entropy = model(micro_batch, 0.7)
        joint[:, micro_batch.order] = torch.stack([logprobs, entropy]).detach()
        (logprobs.sum() + entropy.square().sum()).backward()
    return [joint, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", ["qwen3", "llama", "mistral"])
@pytest.mark.parametrize("window", [None, 7])
def test_it_agrees_with_the_dense_mask(name: str, window: int | None, families: dict[str, Path]) -> None:
    model = load_policy(str(families[name]), load_tokenizer(str(families[name])))
    if name == "mistral":  # the family whose layers have a window
        config: Any = model.lm.config
        config.sliding_window = window
        for layer in model.lm.base_model.layers:
            layer.self_attn.sliding_window = window
    elif window:
        pytest.skip("it has no window")
    sequences = ragged()
    dense = outcome(model, "sdpa", pack_micro_batches(sequences, 10**6, 0))
    for bucketed in (False, True):
        passes = pack_micro_batches(sequences, 512, 512, bucketed=bucketed, shared=False)
        assert len(passes) > 1 and not any(m.branches for m in passes)
        got = outcome(model, VARLEN, passes)
        assert len(got) == len(dense) > 10
        for one, other in zip(got, dense, strict=True):
            assert torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def test_a_shared_prompt_goes_to_flex_attention(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "compiled", lambda: flex_attention)  # building the program takes long
    module = make_module(tiny(), [])
    (tree,) = pack_micro_batches(make_batch(module).sequences, 10**6, 10**6)
    assert tree.branches
    with torch.no_grad():
        module.model.attention = VARLEN
        (got, _), module.model.attention = module.model(tree, 1.0), "sdpa"
        assert torch.allclose(got, module.model(tree, 1.0)[0], atol=1e-5)


def test_bounds_by_hand() -> None:
    group = torch.tensor([[0, 0, 0, 1, 1, 2, -1, -1], [0, 1, 1, 1, 1, 1, 1, -1]])
    bounds, longest = varlen.sequence_bounds(group)
    assert bounds.tolist() == [0, 3, 5, 6, 8, 9, 15, 16] and bounds.dtype == torch.int32
    assert longest == 8  # half of a row cannot hold six tokens
    group = torch.full((1, 3 * BLOCK), -1)
    group[0, :100] = 0
    bounds, longest = varlen.sequence_bounds(group)
    assert bounds.tolist() == [0, 100, 128, 256, 384] and longest == 192


def test_prompts_are_shared_where_that_costs_less() -> None:
    """By hand, with 2 heads of 16 and an MLP of 128: 32,768 FLOPs for a token and 128 for a pair."""
    config = Qwen2Config(hidden_size=32, intermediate_size=128, num_attention_heads=2, num_key_value_heads=2)

    def pays(name: str, attention: str, prompt: int, response: int) -> bool:
        twice = [SequenceTokens([3] * prompt, [4] * response, [True] * response)] * 2
        return shares_prompts(name, attention, config, twice)

    # Two sequences of 1,000 tokens have 10⁶ pairs, for which flex attention takes 1.2 · 128 · 10⁶ FLOPs more:
    # what 4,687 tokens cost with 32,768 FLOPs each.
    products = 2 * 32 * (2 * 16 * 4 + 3 * 128)
    assert products == 32768 and 1.2 * 128e6 / products == 4687.5
    assert not pays("auto", VARLEN, 900, 100)
    # Sequences of 100 have 10⁴ pairs: 46.9 tokens.
    assert pays("auto", VARLEN, 47, 53) and not pays("auto", VARLEN, 46, 54)
    assert not pays("varlen", VARLEN, 90, 10)
    assert pays("auto", FLEX, 1, 999) and pays("auto", "sdpa", 1, 999)


def test_what_auto_is_and_what_is_refused(tiny: Callable[..., Config]) -> None:
    config = make_module(tiny(), []).model.lm.config
    assert choose_attention("auto", CPU, True, config) == "sdpa"
    assert choose_attention("auto", GPU, True, config) == VARLEN
    assert choose_attention("auto", GPU, False, config) == FLEX
    config.attn_logit_softcapping = 30.0
    assert choose_attention("auto", GPU, True, config) == FLEX
    for device, bf16 in ((CPU, True), (GPU, False), (GPU, True)):
        with pytest.raises(UsageError, match="varlen needs a GPU"):
            choose_attention("varlen", device, bf16, config)
    for words in (["trainer.accelerator=cpu"], ["trainer.precision=32-true"]):
        with pytest.raises(UsageError, match=r"model\.attention=varlen"):
            tiny("model.attention=varlen", *words)


@pytest.mark.parametrize("checkpointing", [None, "selective"])
def test_the_number_of_sequences_compiles_no_new_program(
    families: dict[str, Path], monkeypatch: pytest.MonkeyPatch, checkpointing: str | None
) -> None:
    torch._dynamo.reset()
    model, plain = (load_policy(str(families["llama"]), load_tokenizer(str(families["llama"]))) for _ in "12")
    if checkpointing:
        checkpoint_layers(model.lm, checkpointing)
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    compile_layers(model.lm)
    for count in (17, 18, 19):
        sequences = [SequenceTokens([count, 5 + i, 7], [9] * 18, [True] * 18) for i in range(count)]
        passes = pack_micro_batches(sequences, 384, 384, bucketed=True, shared=False)
        assert {m.input_ids.shape for m in passes} == {(1, 384)}
        for one, other in zip(outcome(model, VARLEN, passes), outcome(plain, VARLEN, passes), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    assert counter.frame_count == 1
    torch._dynamo.reset()
