"""The definition of ``torch.nn.attention.varlen``'s kernel, for tensors on the CPU, where torch has none.

Torch's own code around the kernel runs as on a GPU: its checks, its autograd, its place in compiled graphs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import varlen

_operations: Any = varlen


def register() -> None:
    """Give torch's operation, forward and backward, a kernel for the CPU; it stays for the process."""
    _operations._varlen_attn.register_kernel("cpu", _forward)
    _operations._varlen_attn_backward.register_kernel("cpu", _backward)


def _sequences(
    query: Tensor, key: Tensor, bounds: Tensor, longest: int, scale: float, window: list[int]
) -> Iterator[tuple[slice, Tensor]]:
    """Yield each sequence's place and its attention weights ``[H, n, n]``."""
    assert bounds.dtype == torch.int32 and query.dtype == key.dtype
    assert bounds[0] == 0 and bounds[-1] == len(query) and window[1] == 0
    for start, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False):
        assert 0 < end - start <= longest
        place = torch.arange(end - start)
        back = place[:, None] - place
        seen = (back >= 0) & ((back <= window[0]) | (window[0] < 0))
        part = slice(start, end)
        scores = scale * torch.einsum("qhd,khd->hqk", query[part], key[part])
        yield part, scores.masked_fill(~seen, -torch.inf).softmax(-1)


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    scale: Any,
    window_size: Any,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    assert torch.equal(cu_seq_q, cu_seq_k) and max_q == max_k and query.dtype == value.dtype
    assert is_causal == (window_size == [-1, 0])
    copies = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(copies, 1) for x in (key, value))
    output = torch.empty_like(query)
    for part, weights in _sequences(query, key, cu_seq_q, max_q, scale, window_size):
        output[part] = torch.einsum("hqk,khd->qhd", weights, value[part])
    return output, torch.zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool,
    rng_state: Tensor,
    scale: Any,
    window_size: Any,
) -> tuple[Tensor, ...]:
    shape, copies = (len(key), key.shape[1], -1, key.shape[2]), query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(copies, 1) for x in (key, value))
    grads = [torch.empty_like(query) for _ in range(3)]
    for part, weights in _sequences(query, key, cu_seq_q, max_q, scale, window_size):
        of_weights = torch.einsum("qhd,khd->hqk", grad_out[part], value[part])
        of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True))
        grads[0][part] = scale * torch.einsum("hqk,khd->qhd", of_scores, key[part])
        grads[1][part] = scale * torch.einsum("hqk,qhd->khd", of_scores, query[part])
        grads[2][part] = torch.einsum("hqk,qhd->khd", weights, grad_out[part])
    return grads[0], *(g.view(shape).sum(2) for g in grads[1:])
