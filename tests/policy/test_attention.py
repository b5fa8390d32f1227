"""Attention masks: a token sees its own prompt and response."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from ecrl.config.schema import Config
from ecrl.policy.attention import attention_mask
from ecrl.policy.packing import pack_micro_batches
from tests.support.conformance import make_batch, make_module


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
