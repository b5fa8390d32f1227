"""Makes a run's policy: loaded, with adapters, sharding over the processes."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ecrl.config.schema import ModelConfig
from ecrl.distributed.sharding import Sharding
from ecrl.policy.attention import choose_attention
from ecrl.policy.lora import add_adapters, fill_adapters
from ecrl.policy.model import PolicyModel, empty_policy, load_policy
from ecrl.policy.weights import read_weights, write_whole


def load_sharded_policy(
    path: str,
    tokenizer: PreTrainedTokenizerBase,
    config: ModelConfig,
    sharding: Sharding,
    device: torch.device,
    seed: int = 0,
    adapters: bool = True,
) -> PolicyModel:
    """Load a policy onto its device or devices.

    A sharded one is never whole anywhere: it is built without storage, sharded, then filled from files.

    Args:
        path: directory in HF format or hub id.
        tokenizer: the policy's.
        config: attention, checkpointing and adapters.
        sharding: how it lies over the processes.
        device: where this process computes.
        seed: of the adapters' start.
        adapters: add the configured adapters.

    Raises:
        UsageError: there is no such model, or it cannot be split as asked.
    """
    whole = sharding.mesh is None or not sharding.splits
    model = load_policy(path, tokenizer) if whole else empty_policy(path, tokenizer)
    model.attention = choose_attention(config.attention, device)
    if config.activation_checkpointing:
        model.lm.gradient_checkpointing_enable({"use_reentrant": False})
    if config.lora.r and adapters:
        with torch.device(model.lm.device):
            add_adapters(model.lm, config.lora)
    sharding.apply(model)
    home = torch.device("cpu") if sharding.cpu_offload else device
    if whole:
        model.to(home)
    else:
        fill: Any = model._apply  # as `to_empty`, but what is real stays: buffers
        fill(lambda t: torch.empty_like(t, device=home) if t.is_meta else t.to(device))
        read_weights(model.lm, path)
    model.compute_device = device
    fill_adapters(model.lm, seed, write_whole)
    return model
