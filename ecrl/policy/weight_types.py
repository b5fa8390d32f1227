"""In which types the trainer holds weights, and the bytes that they take."""

from __future__ import annotations

import torch

from ecrl.config.schema import ModelConfig

#: Bytes of an nf4 weight, https://arxiv.org/abs/2305.14314, section 3: 4 bits; for each block of 64 weights a
#: scale of 8 bits; for each block of 256 scales one of 32 bits.
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)


def held_dtype(model: ModelConfig, bf16: bool) -> torch.dtype:
    """Return the type of the weights that come from files: the whole model, or the base below adapters.

    Float32 if ``auto``, so that small steps add up; but nothing is added to a frozen base, and where the
    passes are in bfloat16 it is held in that. What ``model.quantization`` quantises has no such type.

    Args:
        model: the policy's settings.
        bf16: whether the forward passes compute in bfloat16.
    """
    if model.dtype != "auto":
        dtype: torch.dtype = getattr(torch, model.dtype)
        return dtype
    return torch.bfloat16 if model.lora.r and bf16 else torch.float32


def trained_dtype(model: ModelConfig) -> torch.dtype:
    """Return the type of the trained weights; adapters are always float32."""
    return torch.bfloat16 if model.dtype == "bfloat16" and not model.lora.r else torch.float32


def held_bytes(model: ModelConfig, bf16: bool, linear: int, parameters: int) -> float:
    """Return the bytes of the weights that come from files.

    Args:
        model: the policy's settings.
        bf16: whether the forward passes compute in bfloat16.
        linear: number of weights in the linear layers' matrices, without the LM head's.
        parameters: number of all weights.
    """
    size = held_dtype(model, bf16).itemsize
    return linear * (NF4_BYTES if model.quantization else size) + (parameters - linear) * size
