"""Who may see whom in a packed row: the same rule as a dense mask and as a sparse one.

A token sees the earlier tokens of its own unit that belong to the unit's prompt or to its own branch; in
layers with a sliding window, only those fewer than ``window`` positions before it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from ecrl.layout import Layout

DENSE_ROW = 256  # tokens; longer rows lose to the mask, which grows with the square


def choose_attention(name: str, device: torch.device) -> str:
    """Return ``sdpa`` or ``flex_attention``; ``auto`` takes the latter on a GPU."""
    if name == "auto":
        return "flex_attention" if device.type == "cuda" else "sdpa"
    return name


def row_limit(attention: str, max_tokens: int, row_tokens: int | None) -> int:
    """Longest packed row in tokens: what is asked for, or what suits the kind of attention."""
    if row_tokens is not None:
        return row_tokens
    return max_tokens if attention == "flex_attention" else DENSE_ROW


def model_mask(layout: Layout, attention: str, device: torch.device, config: Any) -> Any:
    """Build what a transformers model takes as its mask.

    Returns:
        An :func:`attention_mask`; two of them by the kind of layer, where some layers have a sliding window.
    """
    window: int | None = getattr(config, "sliding_window", None)
    # A mask of padding alone is cut to the window by the model itself.
    whole = window is None or bool(layout.position_ids.max() < window)
    if whole or (attention == "sdpa" and layout.simple):
        return attention_mask(layout, attention, device)
    cut = attention_mask(layout, attention, device, window)
    if getattr(config, "layer_types", None) is None:
        return cut
    return {"full_attention": attention_mask(layout, attention, device), "sliding_attention": cut}


def attention_mask(layout: Layout, attention: str, device: torch.device, window: int | None = None) -> Any:
    """Build the mask of a layout.

    Args:
        layout: ``R`` rows of ``L`` tokens.
        attention: ``sdpa`` or ``flex_attention``.
        device: where it belongs.
        window: how far a token sees, in positions; None for all the way.

    Returns:
        A block mask for ``flex_attention``; for ``sdpa`` ``[R, L]`` of 0 and 1 where each row holds one
        sequence, else ``[R, 1, L, L]`` bool.
    """
    unit, branch = layout.unit.to(device), layout.branch.to(device)
    position = layout.position_ids.to(device)
    reach = window or layout.input_ids.shape[1]
    if attention == "flex_attention":
        return _sparse(unit, branch, position, reach)
    return (unit >= 0).long() if layout.simple else _dense(unit, branch, position, reach)


def _dense(unit: Tensor, branch: Tensor, position: Tensor, reach: int) -> Tensor:
    same_unit = unit[:, :, None] == unit[:, None, :]
    visible = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    near = position[:, :, None] - position[:, None, :] < reach
    causal = torch.ones(unit.shape[1], unit.shape[1], dtype=torch.bool, device=unit.device).tril()
    return (same_unit & visible & near & causal)[:, None]


def _sparse(unit: Tensor, branch: Tensor, position: Tensor, reach: int) -> Any:
    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_unit = unit[row, query] == unit[row, key]
        own_branch = (branch[row, key] == 0) | (branch[row, query] == branch[row, key])
        near = position[row, query] - position[row, key] < reach
        return same_unit & own_branch & near & (query >= key)

    rows, length = unit.shape
    return create_block_mask(visible, rows, None, length, length, device=unit.device.type)
