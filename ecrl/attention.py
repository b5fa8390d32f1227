"""Who may see whom in a packed row: the same rule as a dense mask and as a sparse one.

A token sees the earlier tokens of its own unit that belong to the unit's prompt or to its own branch.
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


def attention_mask(layout: Layout, attention: str, device: torch.device) -> Any:
    """Build the mask that the transformers model takes.

    Returns:
        A block mask for ``flex_attention``; for ``sdpa`` ``[R, L]`` of 0 and 1 where each row holds one
        sequence, else ``[R, 1, L, L]`` bool.
    """
    unit, branch = layout.unit.to(device), layout.branch.to(device)
    if attention == "flex_attention":
        return _sparse(unit, branch)
    return (unit >= 0).long() if layout.simple else _dense(unit, branch)


def _dense(unit: Tensor, branch: Tensor) -> Tensor:
    same_unit = unit[:, :, None] == unit[:, None, :]
    visible = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    causal = torch.ones(unit.shape[1], unit.shape[1], dtype=torch.bool, device=unit.device).tril()
    return (same_unit & visible & causal)[:, None]


def _sparse(unit: Tensor, branch: Tensor) -> Any:
    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_unit = unit[row, query] == unit[row, key]
        own_branch = (branch[row, key] == 0) | (branch[row, query] == branch[row, key])
        return same_unit & own_branch & (query >= key)

    rows, length = unit.shape
    return create_block_mask(visible, rows, None, length, length, device=unit.device.type)
