"""The decoder layers of a model: what they keep for the backward pass, and whether they are compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.attention.varlen  # defines its operation
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from ecrl.errors import UsageError

#: Programs that the layers may be compiled to: shapes of passes × (with and without gradient). A pass has at
#: most 8 lengths above an eighth of a full row (``ecrl.policy.packing``), and a power of two of rows.
MOST_PROGRAMS = 128

#: Operations whose results selective checkpointing keeps: matrix products, and attention by whatever kernel.
KEPT_OPERATIONS: list[Any] = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.higher_order.flex_attention,
    torch.ops.torch_attn._varlen_attn.default,
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


def compiles(setting: bool | str, device: torch.device, special: bool) -> bool:
    """Whether the layers are compiled.

    Args:
        setting: ``model.compile``; ``auto`` compiles on a GPU.
        device: where they compute.
        special: whether tensor parallelism splits them, or they are quantised; ``auto`` compiles no such.
    """
    return bool(setting) if setting != "auto" else device.type == "cuda" and not special


def compile_layers(lm: nn.Module) -> None:
    """Let torch compile the forward pass of each decoder layer, in place, at its first use.

    All layers share a program for each shape, with and without gradient. Names of parameters do not change.
    Call it after ``checkpoint_layers``, because what is kept is chosen while a program is made, and before
    FSDP, whose hooks stay outside. Within ``torch.compiler.set_stance("force_eager")`` the layers run as they
    are.
    """
    for layer in decoder_layers(lm):
        layer.forward = _compiled(layer.forward)


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    program: Any = torch.compile(forward, dynamic=False, fullgraph=True)

    def compiled(*args: Any, **kwargs: Any) -> Any:
        try:
            with torch._dynamo.config.patch(recompile_limit=MOST_PROGRAMS):
                return program(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(
                f"The model's layers cannot be compiled here ({reason}); set model.compile=false."
            ) from error

    return compiled


def _checkpointed(forward: Callable[..., Any], settings: dict[str, Any]) -> Callable[..., Any]:
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        # Generation has no graph, and writes to its cache once.
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **settings, **kwargs)

    return checkpointed
