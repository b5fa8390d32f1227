"""Flex attention over packed rows: the block mask, and the compiled function as transformers calls it.

https://arxiv.org/abs/2412.05496
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, and_masks, flex_attention
from torch.nn.functional import pad
from transformers import AttentionInterface

from ecrl.errors import UsageError
from ecrl.policy.packing import BLOCK

#: Its name for transformers, whose own would fall back to unfused attention after a few shapes.
FLEX = "ecrl_flex_attention"
#: Programs that may be compiled: shapes × (with and without gradient) × (with and without a window).
MOST_PROGRAMS = 128


def block_mask(group: Tensor, response: Tensor, position: Tensor, window: int | None) -> BlockMask:
    """Build the mask of packed rows from what each block holds, without any ``[L, L]`` tensor.

    Along a row, groups and responses follow one another. So a block of keys is needed by a later block of
    queries if it holds a prompt of a group that reaches so far, or a response that does. Padding sees padding
    of its own block only.

    Args:
        group: ``[R, L]`` long, index of each token's prompt group within its row; −1 for padding.
        response: ``[R, L]`` long, 0 in a prompt, 1 and up in the responses to it.
        position: ``[R, L]`` long.
        window: size of the sliding window, in positions; None for full attention.
    """
    length = group.shape[1]
    padding = group < 0
    groups = group.masked_fill(padding, length)  # ascending along the row
    ends = (groups.diff(dim=1) != 0) | (response.diff(dim=1) != 0) | padding[:, 1:]
    span = pad(ends.cumsum(1), (1, 0))  # ascending: which prompt or response, or which token of the padding

    groups, span = _blocks(groups, length), _blocks(span, length + 1)
    prompt = (_blocks(response, 1) == 0) & (groups < length)
    last_prompt = groups.masked_fill(~prompt, -1).amax(-1)
    in_reach = _key(last_prompt) >= _query(groups[..., 0])
    in_reach |= _key(span[..., -1]) >= _query(span[..., 0])
    one_group = groups[..., 0] == groups[..., -1]
    whole = _key(one_group) & _query(one_group) & (_key(groups[..., 0]) == _query(groups[..., 0]))
    whole &= _key(prompt.all(-1)) | (_key(span[..., 0]) == _query(span[..., -1]))

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_group = group[row, query] == group[row, key]
        own_response = (response[row, key] == 0) | (response[row, query] == response[row, key])
        return same_group & own_response & (query >= key)

    rule: Any = visible
    if window is not None:
        places = _blocks(position, 0)
        in_reach &= _query(places.amin(-1)) - _key(places.amax(-1)) < window
        whole &= _query(places.amax(-1)) - _key(places.amin(-1)) < window

        def near(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return position[row, query] - position[row, key] < window

        rule = and_masks(visible, near)

    square = torch.ones(groups.shape[1], groups.shape[1], dtype=torch.bool, device=group.device)
    earlier, same = square.tril(-1), torch.eye(len(square), dtype=torch.bool, device=group.device)
    full = earlier & in_reach & whole
    part = same | (earlier & in_reach & ~whole)
    return BlockMask.from_kv_blocks(
        *_listed(part), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(length, length)
    )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: BlockMask,
    scaling: float | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend with flex attention; see transformers' ``AttentionInterface``.

    Args:
        module: the attention layer.
        query: ``[R, H, L, D]``.
        key: ``[R, K, L, D]``; ``K`` divides ``H``.
        value: ``[R, K, L, D]``.
        attention_mask: of the rows.
        scaling: factor of the scores.
        softcap: limit of the scores' magnitude; None for none.
        **others: for other kinds of attention.

    Returns:
        ``[R, L, H, D]``, and None in place of the weights.

    Raises:
        UsageError: the model has attention sinks.
    """
    if others.get("s_aux") is not None:
        raise UsageError("This model's attention sinks need another kind of attention: model.attention=sdpa.")

    # Inside a compiled layer, it is compiled with the layer.
    function: Any = flex_attention if torch.compiler.is_compiling() else _alone
    output = function(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=attention_mask,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return output.transpose(1, 2).contiguous(), None


def _alone(*args: Any, **kwargs: Any) -> Any:
    with torch._dynamo.config.patch(recompile_limit=MOST_PROGRAMS):
        return compiled()(*args, **kwargs)


@cache
def compiled() -> Any:
    """Compile flex attention, once for each shape; unfused attention in its place would be an error."""
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


AttentionInterface.register(FLEX, attend)


def _capped(limit: float) -> Any:
    def soft(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return limit * torch.tanh(score / limit)

    return soft


def _blocks(tokens: Tensor, fill: int) -> Tensor:
    """Cut rows ``[R, L]`` into blocks ``[R, B, BLOCK]``, the last one filled up."""
    filled = pad(tokens, (0, -tokens.shape[1] % BLOCK), value=fill)
    return filled.view(len(filled), -1, BLOCK)


def _query(blocks: Tensor) -> Tensor:
    return blocks[:, :, None]


def _key(blocks: Tensor) -> Tensor:
    return blocks[:, None, :]


def _listed(needed: Tensor) -> tuple[Tensor, Tensor]:
    """Turn ``[R, B, B]`` bool into the number of key blocks of each query block, and their indices first."""
    numbers = needed[:, None].int()
    order = numbers.argsort(dim=-1, descending=True, stable=True)
    return numbers.sum(-1, dtype=torch.int32), order.int()
