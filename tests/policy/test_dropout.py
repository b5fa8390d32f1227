"""A policy gives the same log-probs twice, also where its architecture has dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import pack_micro_batches

SMALL: dict[str, Any] = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}


def qwen2() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, **sizes, num_key_value_heads=2, attention_dropout=0.5))


def gpt2() -> Any:
    rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    return GPT2LMHeadModel(GPT2Config(**SMALL, **rates, n_embd=32, n_layer=2, n_head=2, n_positions=64))


@pytest.mark.parametrize("make", [qwen2, gpt2])
def test_scoring_twice_in_training_mode_is_the_same(make: Any) -> None:
    model = PolicyModel(make(), [1], 0).train()
    (micro_batch,) = pack_micro_batches([SequenceTokens([5, 6, 7], [8, 9, 10, 1], [True] * 4)], 64, 0)
    first, second = (model(micro_batch, 1.0)[0] for _ in range(2))
    assert model.training and torch.equal(first, second)
