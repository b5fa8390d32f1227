"""The decoder layers of a model, and what they keep for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

#: Operations whose results selective checkpointing keeps: matrix products, and attention by whatever kernel.
KEPT_OPERATIONS: list[Any] = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.higher_order.flex_attention,
]


def decoder_layers(lm: nn.Module) -> list[nn.Module]:
    """Return the decoder layers: those that transformers marks as not to be split, or the longest list."""
    names = set(getattr(lm, "_no_split_modules", None) or ())
    layers = [m for m in lm.modules() if type(m).__name__ in names]
    if layers:
        return layers
    stacks = [list(m) for m in lm.modules() if isinstance(m, nn.ModuleList)]
    return max(stacks, key=len, default=[])


def checkpoint_layers(lm: nn.Module, kind: str) -> None:
    """Recompute activations of the decoder layers in the backward pass, in place.

    Results do not change. Whatever hooks a layer has (FSDP's) run once, outside.

    Args:
        lm: a transformers causal LM.
        kind: ``full`` keeps the input of each layer and repeats all its work; ``selective`` also keeps the
            results of ``KEPT_OPERATIONS`` and repeats the rest, which costs little
            (https://arxiv.org/abs/2205.05198).
    """
    # Layers draw no random numbers: dropout is off.
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, KEPT_OPERATIONS)
    for layer in decoder_layers(lm):
        layer.forward = _checkpointed(layer.forward, settings)


def _checkpointed(forward: Callable[..., Any], settings: dict[str, Any]) -> Callable[..., Any]:
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        # Generation has no graph, and writes to its cache once.
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **settings, **kwargs)

    return checkpointed
