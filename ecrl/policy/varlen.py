"""Attention over packed sequences that share no prompt, by flash attention's kernel for varying lengths.

The kernel takes a flat row of tokens and the place where each sequence begins, so nothing is masked. It needs
a GPU and 16-bit numbers. A prompt that several responses share is a tree, which it cannot express: those rows
go to flex attention.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import pad
from transformers import AttentionInterface

from ecrl.errors import UsageError
from ecrl.policy import flex
from ecrl.policy.packing import BLOCK

#: Its name for transformers.
VARLEN = "ecrl_varlen_attention"
LARGEST_HEAD = 256  # flash attention's limit
#: Before torch 2.12 the kernel shares key heads without being told.
_SHARED_HEADS: Any = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


def can_attend(config: Any) -> bool:
    """Whether the kernel computes a model's attention: the size of its heads, and plain softmax.

    Args:
        config: transformers' configuration of the model.
    """
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return size % 8 == 0 and size <= LARGEST_HEAD and not getattr(config, "attn_logit_softcapping", None)


def sequence_bounds(group: Tensor) -> tuple[Tensor, int]:
    """Find where the sequences of rows begin once the rows are laid end to end.

    Padding is cut into sequences of at most ``BLOCK`` tokens.

    Args:
        group: ``[R, L]``, which sequence of its row a token belongs to; −1 for padding.

    Returns:
        The ``N`` beginnings and the end, ``[N + 1]`` int32; and a length that no sequence exceeds, one of a
        few for each ``L``, because programs are compiled for it.
    """
    length = group.shape[1]
    first = pad(group.diff(dim=1) != 0, (1, 0), value=True)
    first |= (group < 0) & (torch.arange(length, device=group.device) % BLOCK == 0)
    starts = first.flatten().nonzero().flatten()
    bounds = pad(starts, (0, 1), value=group.numel()).int()
    longest, limit = int(bounds.diff().max()), length
    for _ in range(3):
        limit = limit // 2 if limit // 2 >= longest else limit
    return bounds, limit


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence; see transformers' ``AttentionInterface``.

    Args:
        module: the attention layer.
        query: ``[R, H, L, D]``.
        key: ``[R, K, L, D]``; ``K`` divides ``H``.
        value: ``[R, K, L, D]``.
        attention_mask: the block mask of rows with shared prompts, which flex attention takes.
        scaling: factor of the scores.
        softcap: None; flex attention alone takes one.
        cu_seq_lens_q: see ``sequence_bounds``; None for rows with shared prompts.
        max_length_q: see ``sequence_bounds``.
        sliding_window: how many positions a token sees, itself included; None for all before it.
        **others: for other kinds of attention.

    Returns:
        ``[R, L, H, D]``, and None in place of the weights.

    Raises:
        UsageError: the model's attention is not a plain softmax.
    """
    if cu_seq_lens_q is None:
        return flex.attend(
            module, query, key, value, attention_mask, scaling=scaling, softcap=softcap, **others
        )
    if softcap is not None or others.get("s_aux") is not None:
        raise UsageError(
            "This model's attention is not a plain softmax, so model.attention=varlen cannot compute it; use "
            "sdpa or auto."
        )
    # Under autocast, rotation makes queries and keys float32 again.
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(value.dtype) for x in (query, key, value))
    window = -1 if sliding_window is None else sliding_window - 1
    output: Any = varlen_attn(
        q,
        k,
        v,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(window, 0),
        **_SHARED_HEADS,
    )
    return output.view(query.shape[0], query.shape[2], *output.shape[1:]), None


AttentionInterface.register(VARLEN, attend)
