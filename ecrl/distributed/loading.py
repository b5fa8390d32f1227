"""Loads a run's policy: adds the adapters, shards it over the processes, and fills it from files."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ecrl.config.schema import ModelConfig
from ecrl.distributed.sharding import Sharding
from ecrl.errors import usage_errors
from ecrl.policy.attention import choose_attention
from ecrl.policy.decoder_layers import checkpoint_layers, compile_layers, compiles
from ecrl.policy.lora import add_adapters, fill_adapters
from ecrl.policy.model import PolicyModel, empty_policy, load_policy
from ecrl.policy.quantization import quantise_layers
from ecrl.policy.weight_types import held_dtype
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

    No process ever holds all parameters of a sharded policy: it is built without storage, sharded, and
    then filled from files.

    Args:
        path: directory in HF format or hub id.
        tokenizer: the policy's tokenizer.
        config: attention, activation checkpointing, compilation, types of the weights and adapters.
        sharding: how the parameters are sharded over the processes.
        device: device on which this process computes.
        seed: seed of the adapters' initial values.
        adapters: whether to add the configured adapters.

    Raises:
        UsageError: there is no such model, an adapter cannot be placed, or the layers cannot be split or
            quantised.
    """
    load = empty_policy if sharding.splits else load_policy
    # Lightning calls this under the device of the run, where 16 bits may have no room.
    with torch.device("cpu") if config.quantization else nullcontext():
        model = load(path, tokenizer, held_dtype(config, sharding.bf16))
    computes = torch.bfloat16 if sharding.bf16 else model.lm.dtype
    if config.quantization:
        quantise_layers(model.lm, device, computes)
    model.attention = choose_attention(config.attention, device, sharding.bf16, model.lm.config)
    model.bucketed = model.attention != "sdpa"
    if config.activation_checkpointing:
        checkpoint_layers(model.lm, str(config.activation_checkpointing))
    if compiles(config.compile, device, sharding.splits_layers or bool(config.quantization)):
        compile_layers(model.lm)
        model.bucketed = True
    if config.lora.r and adapters:
        with torch.device(model.lm.device):
            add_adapters(model.lm, config.lora)
    home = torch.device("cpu") if sharding.cpu_offload else device
    if not sharding.splits:
        model.to(home)
    with usage_errors("trainer."):
        sharding.apply(model)
    if sharding.splits:
        allocate: Any = model._apply  # like `to_empty`, but keeps the values of buffers
        allocate(lambda t: torch.empty_like(t, device=home) if t.is_meta else t.to(device))
        read_weights(model.lm, path)
    model.compute_device = device
    model.compute_dtype = computes
    fill_adapters(model.lm, seed, write_whole)
    return model
