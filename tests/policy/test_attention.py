"""Attention masks: a token sees its own prompt and response."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.config.schema import Config
from ecrl.policy.attention import attention_mask
from ecrl.policy.flex import FLEX
from ecrl.policy.packing import BLOCK, MicroBatch, pack_micro_batches
from tests.support.conformance import make_batch, make_module

CPU = torch.device("cpu")


def random_sequences(seed: int, groups: int, longest: int) -> list[SequenceTokens]:
    """Groups of four responses of random lengths to prompts of random lengths."""
    random = np.random.default_rng(seed)
    sequences = []
    for group in range(groups):
        prompt = [group] * int(random.integers(1, longest))
        lengths = random.integers(1, longest, 4).tolist()
        sequences += [SequenceTokens(prompt, [7] * length, [True] * length) for length in lengths]
    return sequences


def seen(micro_batch: MicroBatch, window: int | None) -> Tensor:
    """The rule, ``[R, L, L]``, from its definition."""
    group, response = micro_batch.prompt_group, micro_batch.response_index
    position, place = micro_batch.position_ids, torch.arange(group.shape[1])
    same_group = group[:, :, None] == group[:, None, :]
    own = (response[:, None, :] == 0) | (response[:, None, :] == response[:, :, None])
    near = position[:, :, None] - position[:, None, :] < (10**9 if window is None else window)
    return same_group & own & near & (place[:, None] >= place)


def test_both_masks_show_a_token_its_own_prompt_and_branch(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    random = torch.Generator().manual_seed(0)
    for row_tokens, window in product((0, 64), (None, 4)):
        for micro_batch in pack_micro_batches(batch.sequences, 10**6, row_tokens):
            rows, length = micro_batch.input_ids.shape
            rule = torch.zeros(rows, 1, length, length, dtype=torch.bool)
            for r, q, k in product(range(rows), range(length), range(length)):
                same_group = micro_batch.prompt_group[r, q] == micro_batch.prompt_group[r, k]
                own = micro_batch.response_index[r, k] in (0, micro_batch.response_index[r, q])
                near = (
                    window is None or micro_batch.position_ids[r, q] - micro_batch.position_ids[r, k] < window
                )
                rule[r, 0, q, k] = same_group and own and near and q >= k
            assert torch.equal(rule[:, 0], seen(micro_batch, window))
            dense = attention_mask(micro_batch, "sdpa", CPU, window)
            if dense.dim() == 4:
                assert torch.equal(dense, rule)
            q, k, v = torch.randn(3, rows, 2, length, 16, generator=random)
            sparse = flex_attention(q, k, v, block_mask=attention_mask(micro_batch, FLEX, CPU, window))
            expected = scaled_dot_product_attention(q, k, v, attn_mask=rule)
            assert torch.allclose(sparse, expected, atol=1e-5)


def test_blocks_are_those_that_the_rule_needs() -> None:
    """Over several blocks: the same attention, and no more blocks than torch finds from the whole mask."""
    random = torch.Generator().manual_seed(0)
    for seed, longest, window in product((0, 1), (40, 250), (None, 150)):
        (micro_batch,) = pack_micro_batches(random_sequences(seed, 4, longest), 10**6, 10**6)
        length = micro_batch.input_ids.shape[1]
        mask = attention_mask(micro_batch, FLEX, CPU, window)
        rule = seen(micro_batch, window)
        q, k, v = torch.randn(3, 1, 1, length, 16, generator=random)
        expected = scaled_dot_product_attention(q, k, v, attn_mask=rule[:, None])
        assert torch.allclose(flex_attention(q, k, v, block_mask=mask), expected, atol=1e-5)
        if window is None:
            from_all = create_block_mask(mask.mask_mod, 1, None, length, length, device="cpu")
            assert torch.equal(mask.to_dense(), from_all.to_dense())
            # A block of the end of a prompt and the start of a response is not recognised as full.
            assert longest == 40 or mask.full_kv_num_blocks.sum() >= 0.8 * from_all.full_kv_num_blocks.sum()


def test_padding_costs_its_own_blocks_only() -> None:
    (micro_batch,) = pack_micro_batches(random_sequences(1, 1, 200), 4096, 4096, bucketed=True)
    mask = attention_mask(micro_batch, FLEX, CPU)
    real = -(-int((micro_batch.prompt_group >= 0).sum()) // BLOCK)
    needed = mask.to_dense()[0, 0]
    assert len(needed) > real
    assert torch.equal(needed[real:], torch.eye(len(needed), dtype=needed.dtype)[real:])


class _Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_block_mask_is_built_without_a_square_of_tokens() -> None:
    sequences = random_sequences(0, 8, 400)
    (micro_batch,) = pack_micro_batches(sequences, 10**6, 10**6)
    length = micro_batch.input_ids.shape[1]
    assert length > 5000
    with _Largest() as largest:
        attention_mask(micro_batch, FLEX, CPU, 100)
    assert largest.elements < 10 * length
