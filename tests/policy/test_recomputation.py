"""Activation checkpointing recomputes the layers with the attention of the first pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from tests.support.conformance import gradient, make_batch, make_module

LAYERS = 2


@pytest.fixture
def calls() -> list[bool]:
    """Whether each call of the attention named ``noted`` computed a gradient."""
    noted: list[bool] = []

    def attention(*args: Any, **kwargs: Any) -> Any:
        noted.append(torch.is_grad_enabled())
        return sdpa_attention_forward(*args, **kwargs)

    AttentionInterface.register("noted", attention)
    return noted


def test_the_recomputation_uses_the_attention_of_scoring(
    tiny: Callable[..., Config], calls: list[bool]
) -> None:
    outcomes = []
    for checkpointing in ("false", "full"):
        config = tiny(f"model.activation_checkpointing={checkpointing}", "update.max_tokens=10000")
        module = make_module(config, build_strategies(config.strategy))
        batch = make_batch(module)
        module.model.attention = "noted"
        module.train()  # as in a run
        calls.clear()
        outcomes.append(gradient(module, batch)[1])
        passes = len(module.scorer.micro_batches(batch))
        assert len(calls) == LAYERS * passes * (2 if checkpointing == "full" else 1)
    assert torch.equal(*outcomes)


def test_generation_uses_sdpa(tiny: Callable[..., Config], calls: list[bool]) -> None:
    model = make_module(tiny(), []).model
    model.attention = "noted"
    calls.clear()
    HFEngine(model, ProcessGroup()).generate([[5, 6, 7]], Sampling(max_new_tokens=2), [0])
    assert not calls
    assert model.attention == "noted"
