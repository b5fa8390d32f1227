"""Attention masks of packed rows, as a dense mask or a block mask.

A token attends to the earlier tokens of its own prompt group that belong to the prompt or to its own
response; in layers with a sliding window, only to those fewer than ``window`` positions before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ecrl.policy.flex import FLEX, block_mask
from ecrl.policy.packing import MicroBatch

DENSE_ROW = 256  # tokens of a row under sdpa; the dense mask grows with the square of the length


def choose_attention(name: str, device: torch.device) -> str:
    """Return transformers' name for ``sdpa`` or ``flex_attention``; ``auto`` is the latter on a GPU."""
    if name == "auto":
        return FLEX if device.type == "cuda" else "sdpa"
    return FLEX if name == "flex_attention" else name


def row_limit(attention: str, max_tokens: int, row_tokens: int | None) -> int:
    """Return the longest packed row in tokens: ``row_tokens``, or a default for the kind of attention."""
    if row_tokens is not None:
        return row_tokens
    return max_tokens if attention == FLEX else DENSE_ROW


def model_mask(micro_batch: MicroBatch, attention: str, device: torch.device, config: Any) -> Any:
    """Build the ``attention_mask`` argument of a transformers model.

    Returns:
        An :func:`attention_mask`; or a dictionary of two, by the type of layer, if some layers have a sliding
        window.
    """
    window: int | None = getattr(config, "sliding_window", None)
    # The model itself applies the window to a mask that hides only padding.
    whole = window is None or bool(micro_batch.position_ids.max() < window)
    if whole or (attention == "sdpa" and micro_batch.simple):
        return attention_mask(micro_batch, attention, device)
    cut = attention_mask(micro_batch, attention, device, window)
    if getattr(config, "layer_types", None) is None:
        return cut
    return {"full_attention": attention_mask(micro_batch, attention, device), "sliding_attention": cut}


def attention_mask(
    micro_batch: MicroBatch, attention: str, device: torch.device, window: int | None = None
) -> Any:
    """Build the mask of a micro-batch.

    Args:
        micro_batch: ``R`` rows of ``L`` tokens.
        attention: ``sdpa`` or ``FLEX``.
        device: device of the mask.
        window: size of the sliding window, in positions; None for full attention.

    Returns:
        A block mask for ``FLEX``; for ``sdpa`` ``[R, L]`` of 0 and 1 if each row holds one sequence, else
        ``[R, 1, L, L]`` bool.
    """
    of_tokens = micro_batch.prompt_group, micro_batch.response_index, micro_batch.position_ids
    group, response, position = (t.to(device, torch.int32) for t in of_tokens)
    if attention == FLEX:
        return block_mask(group, response, position, window)
    return (group >= 0).long() if micro_batch.simple else _dense(group, response, position, window)


def _dense(group: Tensor, response: Tensor, position: Tensor, window: int | None) -> Tensor:
    same_group = group[:, :, None] == group[:, None, :]
    visible = (response[:, None, :] == 0) | (response[:, :, None] == response[:, None, :])
    causal = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool, device=group.device).tril()
    seen = same_group & visible & causal
    if window is not None:
        seen &= position[:, :, None] - position[:, None, :] < window
    return seen[:, None]
