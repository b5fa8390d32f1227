"""Frozen weights in 4 bits (nf4) by bitsandbytes, below adapters. https://arxiv.org/abs/2305.14314."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ecrl.errors import UsageError
from ecrl.policy.lora import linear_layers


def check_quantization() -> None:
    """Check that bitsandbytes is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            "model.quantization=nf4 needs bitsandbytes, which is not installed: pip install bitsandbytes, or "
            "leave it out."
        )


def quantise_layers(lm: Any, device: torch.device, compute_dtype: torch.dtype) -> None:
    """Replace each linear layer but the LM head by one in nf4 on the device, in place, one by one.

    Args:
        lm: a transformers causal LM without adapters, in host memory.
        device: where the layers compute.
        compute_dtype: type of their matrix products.

    Raises:
        UsageError: bitsandbytes is not installed.
    """
    check_quantization()
    for name, layer in linear_layers(lm):
        lm.set_submodule(name, _quantised(layer, device, compute_dtype))


def _quantised(layer: nn.Linear, device: torch.device, compute_dtype: torch.dtype) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    with torch.device("meta"):
        quantised: Any = Linear4bit(
            layer.in_features, layer.out_features, False, compute_dtype=compute_dtype, quant_type="nf4"
        )
    quantised.weight = Params4bit(layer.weight.data, quant_type="nf4", module=quantised)
    quantised.bias = layer.bias
    # Otherwise it rewrites its weight in another layout when it is first used without gradient.
    quantised.support_avx512bf16_for_cpu = False
    moved: nn.Module = quantised.to(device)
    return moved


def dequantised(parameter: Tensor) -> Tensor:
    """Return the matrix that a quantised parameter stands for, as its layer computes with it."""
    from bitsandbytes.functional import dequantize_4bit

    quantised: Any = parameter
    matrix: Tensor = dequantize_4bit(quantised.data, quantised.quant_state)
    return matrix


def is_quantised(parameter: Tensor) -> bool:
    """Whether a parameter holds 4-bit numbers."""
    return getattr(parameter, "quant_state", None) is not None
