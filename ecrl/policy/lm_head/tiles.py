"""Tiles of the logits: how they are cut, and the forward and backward pass over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import isqrt, log
from os import environ
from typing import Protocol

import torch
from torch import Tensor

CPU_TILE = 2**20  # elements; two float32 buffers of 4 MB each stay in the cache
GPU_TILE = 2**26  # elements; large enough that the time of kernel launches is negligible


@dataclass(frozen=True)
class Tile:
    """Operands of ``n`` rows of logits over ``w`` columns of the vocabulary.

    Attributes:
        hidden: ``[n, D]``.
        weight: ``[w, D]``, of the same type as ``hidden``.
        bias: ``[w]``, or None.
        column: ``[n]`` long, column of each row's target; outside ``[0, w)`` if it is not in this tile.
        scale: factor of the logits in bits: ``scale · (hidden @ weight.T + bias)``.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    column: Tensor
    scale: float


@dataclass(frozen=True)
class Upstream:
    """Inputs of the backward pass for each active row, all ``[n]``.

    Attributes:
        total: logsumexp of the logits, bits.
        entropy: entropy, nats.
        grad_logprobs: gradient of the loss by the log-probability.
        grad_entropy: gradient of the loss by the entropy; None if all are zero.
    """

    total: Tensor
    entropy: Tensor
    grad_logprobs: Tensor
    grad_entropy: Tensor | None

    def select(self, rows: slice) -> Upstream:
        """Return some of the rows."""
        grad_entropy = None if self.grad_entropy is None else self.grad_entropy[rows]
        return Upstream(self.total[rows], self.entropy[rows], self.grad_logprobs[rows], grad_entropy)


class Backend(Protocol):
    """The element-wise work on a tile."""

    def fold(self, tile: Tile, state: Tensor) -> None:
        """Fold a tile's logits into the rows' running state ``[4, n]``, in place; see :func:`scan`."""
        ...

    def grad_logits(self, tile: Tile, upstream: Upstream) -> Tensor:
        """Return ``−∂loss/∂x`` ``[n, w]``, of the type of the tile's operands; valid until the next call."""
        ...


class Head:
    """The logits of some rows, cut into tiles.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]``, or None.
        targets: ``[N]``, each target's row of the weight; outside ``[0, V)`` if it has no row here.
        temperature: divides the logits.
        chunk_logits: elements of a tile; None takes a default for the device.
        dtype: type of the logits and of everything computed from them.
        operand: type of the operands of matrix products.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_logits: int | None,
        dtype: torch.dtype,
        operand: torch.dtype,
    ) -> None:
        self.hidden, self.weight, self.bias, self.targets = hidden.to(operand), weight, bias, targets
        self.temperature, self.dtype, self.operand = temperature, dtype, operand
        elements = chunk_logits or (CPU_TILE if hidden.device.type == "cpu" else GPU_TILE)
        # Nearly square tiles minimise what the matrix products read for each number they write.
        wanted = max(isqrt(elements), elements // max(len(hidden), 1))
        self.width = max(1, min(len(weight), wanted))
        self.height = max(1, min(len(hidden), elements // self.width))
        self.backend = choose_backend(hidden.device, dtype, self.height * self.width)

    def columns(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield ranges of the vocabulary, with their rows of the weight."""
        for part in _ranges(len(self.weight), self.width):
            yield part, self.weight[part].to(self.operand)

    def rows(self) -> Iterator[slice]:
        """Yield ranges of the tokens."""
        return _ranges(len(self.hidden), self.height)

    def tile(self, rows: slice, columns: slice, weight: Tensor) -> Tile:
        """Return the operands of one tile."""
        return Tile(
            hidden=self.hidden[rows],
            weight=weight,
            bias=None if self.bias is None else self.bias[columns],
            column=self.targets[rows] - columns.start,
            # In bits, because powers of two are cheaper to compute.
            scale=1 / (self.temperature * log(2)),
        )


def scan(head: Head) -> Tensor:
    """Fold all tiles into the state of each row.

    Returns:
        ``[4, N]``: maximum of the logits, the target's logit (−inf if the target has no row), mass
        ``Σ 2^(x − max)``, moment ``Σ 2^(x − max)·(x − max)``; bits.
    """
    state = torch.zeros(4, len(head.hidden), dtype=head.dtype, device=head.hidden.device)
    state[0] = torch.finfo(head.dtype).min
    state[1] = -torch.inf
    for columns, weight in head.columns():
        for rows in head.rows():
            head.backend.fold(head.tile(rows, columns, weight), state[:, rows])
    return state


def rebase(state: Tensor, top: Tensor) -> None:
    """Convert masses and moments of a state ``[4, N]`` to a new maximum ``[N]``, in place."""
    old, _, mass, moment = state
    drop = old - top
    shrink = drop.exp2()
    moment.add_(mass * drop).mul_(shrink)
    mass.mul_(shrink)
    old.copy_(top)


def pull_back(
    head: Head, upstream: Upstream, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compute the gradients with respect to the hidden states, weight and bias; None if not needed."""
    d_rows = torch.zeros_like(head.hidden, dtype=head.dtype) if needs[0] else None
    d_weight = torch.empty_like(head.weight) if needs[1] else None
    d_bias = torch.empty_like(head.bias) if needs[2] and head.bias is not None else None
    # Sums over rows are accumulated in float32 or wider in a cached buffer, whatever the weight's type.
    slab = head.hidden.new_empty(head.width, head.hidden.shape[1], dtype=head.dtype)
    scale = -1 / head.temperature
    for columns, weight in head.columns():
        d_part = slab[: len(weight)].zero_()
        d_bias_part = slab.new_zeros(len(weight))
        for rows in head.rows():
            grad_logits = head.backend.grad_logits(head.tile(rows, columns, weight), upstream.select(rows))
            if d_bias is not None:
                d_bias_part.add_(grad_logits.sum(0, dtype=head.dtype), alpha=scale)
            if d_weight is not None:
                _accumulate(d_part, grad_logits.T, head.hidden[rows], scale)
            if d_rows is not None:
                _accumulate(d_rows[rows], grad_logits, weight, scale)
        if d_weight is not None:
            d_weight[columns] = d_part
        if d_bias is not None:
            d_bias[columns] = d_bias_part
    return d_rows, d_weight, d_bias


def _accumulate(out: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """``out += scale · left @ right``, accumulated in the type of ``out``."""
    if left.dtype == out.dtype:
        out.addmm_(left, right, alpha=scale)
    else:
        out.add_(torch.mm(left, right, out_dtype=out.dtype), alpha=scale)


def choose_backend(device: torch.device, dtype: torch.dtype, elements: int) -> Backend:
    """Choose Triton kernels for float32 logits on CUDA if Triton is installed, else torch operations."""
    # With this variable set, Triton's interpreter runs kernels without a GPU.
    fused = device.type == "cuda" or environ.get("TRITON_INTERPRET") == "1"
    if fused and dtype == torch.float32 and find_spec("triton"):
        from ecrl.policy.lm_head.kernels import Fused

        return Fused()
    from ecrl.policy.lm_head.eager import Eager

    return Eager(elements, dtype, device)


def _ranges(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
