"""Activation checkpointing changes no bit, and keeps what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.config.schema import Config, LoraConfig, ModelConfig
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.sharding import Sharding
from ecrl.estimate.memory import layer_activation_bytes
from ecrl.policy.decoder_layers import checkpoint_layers
from ecrl.policy.model import PolicyModel, load_tokenizer
from ecrl.policy.packing import pack_micro_batches
from tests.support.conformance import make_batch, make_module
from tests.support.jobs import job
from tests.support.live_memory import live_bytes
from tests.support.tiny import TINY

KINDS = (False, "selective", "full")


def stats_and_gradient(model: PolicyModel, sequences: Sequence[SequenceTokens]) -> list[Tensor]:
    (micro_batch,) = pack_micro_batches(sequences, 10**6, 64)
    scores = model(micro_batch, 0.7)
    (scores[0].sum() + scores[1].square().sum()).backward()
    return [*scores, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("rank", [0, 2])
def test_loss_and_gradient_are_the_same_bits(
    tiny: Callable[..., Config], families: dict[str, Path], rank: int
) -> None:
    module = make_module(tiny(), [])
    sequences = make_batch(module).sequences
    for path in (Path(module.scorer.path), *families.values()):
        plain, *others = (
            stats_and_gradient(
                load_sharded_policy(
                    str(path),
                    load_tokenizer(str(path)),
                    ModelConfig(activation_checkpointing=kind, lora=LoraConfig(r=rank)),
                    Sharding(),
                    torch.device("cpu"),
                ),
                sequences,
            )
            for kind in KINDS
        )
        for other in others:
            assert len(other) == len(plain) > 4
            assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True)), path


def test_the_plan_knows_what_a_layer_keeps(families: dict[str, Path]) -> None:
    path = families["llama"]
    model = job(*TINY, f"model.path={path}").model
    kept = {}
    for kind in KINDS:
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        if kind:
            checkpoint_layers(lm, str(kind))
        one, two = (live_bytes(partial(through_layers, lm, count)) for count in (1, 2))
        kept[kind] = two - one
        assert kept[kind] == pytest.approx(layer_activation_bytes(model, 96, 4, 4, 1, kind), rel=0.01)
    assert kept["full"] < kept["selective"] < kept[False]


def through_layers(lm: PreTrainedModel, count: int) -> Tensor:
    """Hidden states of 96 tokens after some of the layers, with their graph."""
    lm.config.num_hidden_layers = count
    hidden: Tensor = lm.base_model(input_ids=torch.arange(96).view(2, 48), use_cache=False).last_hidden_state
    return hidden
