"""Log-probabilities and entropy of tokens from hidden states, without ever holding the logits.

    x = (h·Wᵀ + b) / T        logπ = x_y − logsumexp(x)        H = −Σ_v p_v·log p_v

    ∂(g·logπ + k·H)/∂x = g·(onehot(y) − p) − k·p·(log p + H)

The logits are made tile by tile (some rows, some columns of the vocabulary) and folded into a running
maximum, mass and first moment; the backward pass makes each tile again. On a CPU a tile stays in the
cache, so that element-wise work costs little beside the matrix products. Inside, everything is in bits:
log2(e)/T rides along in the matrix product, and on CPUs ``exp2`` is several times faster than ``exp``,
which moreover slows down tenfold where it underflows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt, log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecrl.errors import UsageError

CPU_TILE = 2**20  # elements; two float32 buffers of 4 MB stay in the cache
GPU_TILE = 2**26  # elements; so large that kernel launches do not count


def token_stats(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    chunk_logits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of the whole distribution it was drawn from.

    Both are differentiable (once) with respect to ``hidden``, ``weight`` and ``bias``. Tokens whose
    upstream gradients are zero cost nothing in the backward pass. Beside inputs and gradients, memory
    holds two tiles and a few ``[N]`` vectors.

    Args:
        hidden: ``[N, D]``, last hidden states.
        weight: ``[V, D]`` of the LM head.
        targets: ``[N]``, token ids below ``V``; any other gives NaN.
        temperature: divides the logits.
        bias: ``[V]`` of the LM head, or None.
        chunk_logits: elements of one tile of logits; None takes what suits the device.

    Returns:
        Log-probabilities ``[N]`` and entropies ``[N]``, nats, from logits accumulated in float32
        (float64 for float64 inputs).

    Raises:
        UsageError: shapes do not fit together, or a number is not positive.
    """
    if chunk_logits is None:
        chunk_logits = CPU_TILE if hidden.device.type == "cpu" else GPU_TILE
    _check(hidden, weight, targets, bias, temperature, chunk_logits)
    apply: Any = _TokenStats.apply
    logprobs, entropy = apply(hidden, weight, bias, targets, temperature, chunk_logits)
    return logprobs, entropy


class _TokenStats(torch.autograd.Function):
    """Saves its inputs and two ``[N]`` vectors."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_logits: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.settings = temperature, chunk_logits, *_precision(hidden, weight)
        with torch.autocast(hidden.device.type, enabled=False):
            top, mass, moment, chosen = _scan(_Head(hidden, weight, bias, targets, *ctx.settings))
            # Entropy as the sum of two non-negative terms: no cancellation where p is nearly one-hot.
            entropy = (mass.log2() - moment / mass) * log(2)
            total = top + mass.log2()
        ctx.save_for_backward(hidden, weight, bias, targets, total, entropy)
        ctx.set_materialize_grads(False)
        return (chosen - total) * log(2), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Any, ...]:
        hidden, weight, bias, targets, total, entropy = ctx.saved_tensors
        if grad_entropy is not None and not grad_entropy.any():
            grad_entropy = None
        if grad_logprobs is None:
            grad_logprobs = torch.zeros_like(entropy)
        active = grad_logprobs != 0
        if grad_entropy is not None:
            active |= grad_entropy != 0
        # The common case, all of them, must not copy.
        rows = slice(None) if active.all() else active.nonzero().squeeze(1)
        with torch.autocast(hidden.device.type, enabled=False):
            head = _Head(hidden[rows], weight, bias, targets[rows], *ctx.settings)
            slope = None if grad_entropy is None else grad_entropy[rows]
            upstream = _Upstream(total[rows], entropy[rows], grad_logprobs[rows], slope)
            d_rows, d_weight, d_bias = _pull_back(head, upstream, ctx.needs_input_grad)
        d_hidden = d_rows
        if d_rows is not None and not isinstance(rows, slice):
            d_hidden = torch.zeros_like(hidden).index_copy_(0, rows, d_rows)
        return d_hidden, d_weight, d_bias, None, None, None


class _Head:
    """The logits of some rows, in bits, one tile at a time.

    Args:
        hidden, weight, bias, targets: as in :func:`token_stats`.
        temperature: divides the logits.
        chunk_logits: elements of a tile.
        dtype: of the logits and everything after them.
        operand: of the operands of matrix products.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_logits: int,
        dtype: torch.dtype,
        operand: torch.dtype,
    ) -> None:
        self.hidden, self.weight, self.bias, self.targets = hidden.to(operand), weight, bias, targets
        self.temperature = temperature
        self.dtype, self.operand = dtype, operand
        # About square: the matrix products then read the least for each number they write.
        side = isqrt(chunk_logits)
        self.width = min(len(weight), max(side, chunk_logits // max(len(hidden), 1)))
        self.height = min(len(hidden), max(1, chunk_logits // self.width))
        self.buffers = hidden.new_empty(2, self.height * self.width, dtype=dtype)

    def columns(self) -> Iterator[tuple[slice, Tensor]]:
        """Ranges of the vocabulary, with their rows of the weight."""
        for part in _ranges(len(self.weight), self.width):
            yield part, self.weight[part].to(self.operand)

    def rows(self) -> Iterator[slice]:
        """Ranges of the tokens."""
        return _ranges(len(self.hidden), self.height)

    def tile(self, rows: slice, columns: slice, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of a tile, and a second buffer of its shape."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        logits, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in self.buffers)
        scale = 1 / (self.temperature * log(2))
        _product(logits, self.hidden[rows], weight.T, scale, add=False)
        if self.bias is not None:
            logits.add_(self.bias[columns], alpha=scale)
        return logits, spare

    def locate(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return the column ``[n, 1]`` of each target in a tile, and whether it is in there at all."""
        column = self.targets[rows, None] - columns.start
        inside = (column >= 0) & (column < columns.stop - columns.start)
        return column.where(inside, 0), inside


@dataclass(frozen=True)
class _Upstream:
    """What the backward pass knows of each active row, all ``[n]``."""

    total: Tensor  # logsumexp of the logits, bits
    entropy: Tensor  # nats
    grad_logprobs: Tensor
    grad_entropy: Tensor | None

    def into_tile(self, logits: Tensor, spare: Tensor, rows: slice) -> Tensor:
        """Turn a tile of logits, in place, into ``−∂/∂x`` without the one-hot part."""
        slope = self.grad_logprobs[rows, None]
        logits.sub_(self.total[rows, None])
        if self.grad_entropy is None:
            return logits.exp2_().mul_(slope)
        torch.exp2(logits, out=spare)
        bend = self.grad_entropy[rows, None]
        return logits.mul_(bend * log(2)).add_(slope + bend * self.entropy[rows, None]).mul_(spare)


def _scan(head: _Head) -> Tensor:
    """One pass over all tiles.

    Returns:
        ``[4, N]``: maximum of the logits, mass ``Σ 2^(x − max)``, moment ``Σ 2^(x − max)·(x − max)``,
        and the target's logit; bits.
    """
    state = torch.zeros(4, len(head.hidden), dtype=head.dtype, device=head.hidden.device)
    state[0] = torch.finfo(head.dtype).min
    state[3] = torch.nan
    for columns, weight in head.columns():
        for rows in head.rows():
            top, mass, moment, chosen = state[:, rows]
            logits, powers = head.tile(rows, columns, weight)
            where, inside = head.locate(rows, columns)
            chosen.copy_(logits.gather(1, where).where(inside, chosen[:, None]).squeeze(1))
            new_top = torch.maximum(top, logits.amax(1))
            logits.sub_(new_top[:, None])
            torch.exp2(logits, out=powers)
            drop = top - new_top
            shrink = drop.exp2()
            moment.add_(mass * drop).mul_(shrink)
            mass.mul_(shrink).add_(powers.sum(1))
            moment.add_(powers.mul_(logits).sum(1))
            top.copy_(new_top)
    return state


def _pull_back(
    head: _Head, upstream: _Upstream, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients with respect to the head's rows, weight and bias, each where needed."""
    d_rows = torch.zeros_like(head.hidden, dtype=head.dtype) if needs[0] else None
    d_weight = torch.empty_like(head.weight) if needs[1] else None
    d_bias = torch.empty_like(head.bias) if needs[2] and head.bias is not None else None
    # Sums over rows are formed at full precision while they are in the cache, whatever the weight's type.
    slab = head.hidden.new_empty(head.width, head.hidden.shape[1], dtype=head.dtype)
    scale = -1 / head.temperature
    for columns, weight in head.columns():
        d_part = slab[: len(weight)].zero_()
        d_bias_part = slab.new_zeros(len(weight))
        for rows in head.rows():
            tile = upstream.into_tile(*head.tile(rows, columns, weight), rows)
            where, inside = head.locate(rows, columns)
            tile.scatter_add_(1, where, inside * -upstream.grad_logprobs[rows, None])
            if d_bias is not None:
                d_bias_part.add_(tile.sum(0), alpha=scale)
            operand = tile.to(head.operand)
            if d_weight is not None:
                _product(d_part, operand.T, head.hidden[rows], scale)
            if d_rows is not None:
                _product(d_rows[rows], operand, weight, scale)
        if d_weight is not None:
            d_weight[columns] = d_part
        if d_bias is not None:
            d_bias[columns] = d_bias_part
    return d_rows, d_weight, d_bias


def _product(out: Tensor, left: Tensor, right: Tensor, scale: float, add: bool = True) -> None:
    """``out = [out +] scale · left @ right``, accumulated in the type of ``out``."""
    if left.dtype == out.dtype:
        out.addmm_(left, right, beta=int(add), alpha=scale)
        return
    product = torch.mm(left, right, out_dtype=out.dtype).mul_(scale)
    _ = out.add_(product) if add else out.copy_(product)


def _precision(hidden: Tensor, weight: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The types of the logits and of the operands of matrix products.

    CUDA multiplies half-precision operands into float32 directly; elsewhere they are widened first.
    """
    widest = torch.promote_types(hidden.dtype, weight.dtype)
    if widest == torch.float64:
        return widest, widest
    if hidden.device.type != "cuda":
        return torch.float32, torch.float32
    return torch.float32, torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else widest


def _ranges(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, max(step, 1)))


def _check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature: float,
    chunk_logits: int,
) -> None:
    given = [hidden, weight, targets] + ([] if bias is None else [bias])
    fits = [t.dim() for t in given] == [2, 2, 1, 1][: len(given)] and len(weight) > 0
    fits = fits and hidden.shape[1] == weight.shape[1] and len(hidden) == len(targets)
    if not fits or (bias is not None and len(bias) != len(weight)):
        raise UsageError(
            f"token_stats got hidden, weight, targets[, bias] of shapes {[tuple(t.shape) for t in given]}; "
            "it takes [N, D], [V, D], [N][, [V]] with V > 0: flatten batch and time first."
        )
    if not temperature > 0 or chunk_logits < 1:
        raise UsageError(
            f"token_stats got temperature={temperature}, chunk_logits={chunk_logits}; both must be positive."
        )
