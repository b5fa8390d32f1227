"""Decoding: a causal LM writes completions token by token.

Each distinct prompt is computed once, and its keys and values are given to all completions of it. Completions
that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

#: Ended rows leave the batch once they are this share of it: to leave copies the cache of those that stay.
LEAVING = 1 / 8

#: Maps logits ``[b, V]`` of the rows ``[b]`` still in the batch to their next tokens ``[b]``.
Draw = Callable[[Tensor, NDArray[np.int64]], Tensor]


@torch.no_grad()
def decode(
    lm: Any,
    prompts: Sequence[Sequence[int]],
    draw: Draw,
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    device: torch.device,
    any_left: Callable[[bool], bool],
) -> None:
    """Draw tokens until every completion has ended; ``draw`` keeps what it draws.

    An ended completion may be drawn for some steps more: what follows its end is to be ignored.

    Args:
        lm: a transformers causal LM with a plain linear head, in evaluation mode.
        prompts: token ids of each row, ragged, at least one row.
        draw: draws the next tokens.
        max_new_tokens: the most tokens of a completion.
        eos_ids: tokens that end a completion.
        pad_id: token id for padding.
        device: device of the inputs.
        any_left: whether to go on, given whether any completion here has not ended. Where a forward pass is
            a collective, it must return the same on every process.
    """
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    ids, mask = (x.to(device) for x in _pad_left(list(number), pad_id))
    cache = _cache(lm.config, limit=ids.shape[1] + max_new_tokens)
    logits = _next_logits(lm, ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
    ends = torch.tensor(eos_ids, device=device)
    rows = np.arange(len(prompts))
    going = torch.ones(len(prompts), dtype=torch.bool, device=device)
    members = torch.tensor([number[tuple(prompt)] for prompt in prompts], device=device)
    if len(number) < len(prompts):
        cache.batch_select_indices(members)
    logits, mask = logits[members], mask[members]
    positions = mask.sum(1, keepdim=True)
    for left in reversed(range(max_new_tokens)):
        tokens = draw(logits, rows)
        going &= ~torch.isin(tokens, ends)
        stay = going.nonzero()[:, 0]
        if not left or not any_left(len(stay) > 0):
            break
        if len(stay) <= (1 - LEAVING) * len(rows):
            # Where other processes go on, one row must stay.
            stay = stay if len(stay) else stay.new_zeros(1)
            cache.batch_select_indices(stay)
            rows = rows[stay.cpu().numpy()]
            tokens, going, mask, positions = (x[stay] for x in (tokens, going, mask, positions))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits = _next_logits(lm, tokens[:, None], mask, positions, cache)
        positions = positions + 1


def _pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return the ids ``[P, L]`` of ragged prompts, and ``[P, L]`` of 0 for padding and 1."""
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _next_logits(lm: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """Compute the logits ``[b, V]`` after the last of the new ids ``[b, n]``, which the cache then holds."""
    hidden: Tensor = lm.base_model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    logits: Tensor = lm.get_output_embeddings()(hidden[:, -1:])
    return logits[:, 0]


def _cache(config: Any, limit: int) -> DynamicCache:
    """Make an empty cache for at most ``limit`` tokens; layers with a sliding window keep only the window."""
    cache = DynamicCache(config=config)
    cache.layers = [_Roomy(limit) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _Roomy(DynamicLayer):
    """Keys and values of a layer in buffers with room to spare, so that a step does not copy them.

    Args:
        limit: the most tokens.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = limit
        self._buffers: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append the keys and values ``[b, heads, n, dim]`` of new tokens; return those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = self._buffers = [key_states, value_states]
            return key_states, value_states
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for i, new in enumerate((key_states, value_states)):
            if end > self._buffers[i].shape[2]:
                self._buffers[i] = self._roomy(self._buffers[i][:, :, :start])
            self._buffers[i][:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows at ``indices``, in this order."""
        length = self.get_seq_length()
        self._buffers = [self._roomy(buffer[:, :, :length][indices]) for buffer in self._buffers]
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def _roomy(self, states: Tensor) -> Tensor:
        """Copy states ``[b, heads, n, dim]`` to a buffer with room for a quarter more."""
        rows, heads, length, size = states.shape
        buffer = states.new_empty(rows, heads, min(length + length // 4 + 16, self._limit), size)
        buffer[:, :, :length] = states
        return buffer
