"""Element-wise work on a tile by two Triton kernels; forward reads a tile once, backward reads and writes it.

cuBLAS computes the matrix products; the kernels apply scale and bias. Tested in Triton's interpreter
(``TRITON_INTERPRET=1``), and compiled for compute capabilities 8.0 and 9.0; not yet run on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ecrl.policy.lm_head.tiles import Tile, Upstream

BLOCK = 2048  # logits that one program processes at once
ON_DEVICE_OF: Any = torch.cuda.device_of  # does nothing for a tensor on the CPU


class Fused:
    """See :class:`ecrl.policy.lm_head.tiles.Backend`; for float32 logits."""

    def fold(self, tile: Tile, state: Tensor) -> None:
        """See ``Backend.fold``."""
        logits = _logits(tile)
        count, width = logits.shape
        if count and width:
            with ON_DEVICE_OF(logits):
                FOLD[(count,)](
                    logits, tile.bias, tile.column, state, state.stride(0), width, tile.scale, BLOCK=BLOCK
                )

    def grad_logits(self, tile: Tile, upstream: Upstream) -> Tensor:
        """See ``Backend.grad_logits``."""
        logits = _logits(tile)
        count, width = logits.shape
        out = (
            logits if tile.hidden.dtype == logits.dtype else torch.empty_like(logits, dtype=tile.hidden.dtype)
        )
        if count and width:
            with ON_DEVICE_OF(logits):
                GRAD_LOGITS[(count, triton.cdiv(width, BLOCK))](
                    logits, tile.bias, tile.column, upstream.total, upstream.entropy, upstream.grad_logprobs,
                    upstream.grad_entropy, out, width, tile.scale, BLOCK=BLOCK,
                )  # fmt: skip
        return out


def _logits(tile: Tile) -> Tensor:
    """Compute the products in float32, without scale and bias, ``[n, w]`` contiguous."""
    if tile.hidden.dtype == torch.float32:
        return torch.mm(tile.hidden, tile.weight.T)
    return torch.mm(tile.hidden, tile.weight.T, out_dtype=torch.float32)


def _fold(logits, bias, column, state, stride, width, scale, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each program folds the ``width`` logits of one row into the row's maximum, target, mass and moment."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * width
    state += row
    top = tl.load(state)
    mass = tl.load(state + 2 * stride)
    moment = tl.load(state + 3 * stride)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        real = at < width
        x = tl.load(logits + at, mask=real, other=0.0)
        if bias is not None:
            x += tl.load(bias + at, mask=real, other=0.0).to(tl.float32)
        x = tl.where(real, x * scale, -float("inf"))
        new_top = tl.maximum(top, tl.max(x, 0))
        drop = top - new_top
        shrink = tl.exp2(drop)
        x -= new_top
        power = tl.exp2(x)
        moment = (moment + mass * drop) * shrink + tl.sum(power * tl.where(real, x, 0.0), 0)
        mass = mass * shrink + tl.sum(power, 0)
        top = new_top
    tl.store(state, top)
    tl.store(state + 2 * stride, mass)
    tl.store(state + 3 * stride, moment)
    target = tl.load(column + row)
    inside = (target >= 0) & (target < width)
    chosen = tl.load(logits + target, mask=inside, other=0.0)
    if bias is not None:
        chosen += tl.load(bias + target, mask=inside, other=0.0).to(tl.float32)
    tl.store(state + stride, chosen * scale, mask=inside)


def _grad_logits(  # type: ignore[no-untyped-def]
    logits, bias, column, total, entropy, grad_logprobs, grad_entropy, out, width, scale, BLOCK: tl.constexpr
):
    """Each program computes ``p·(g + k·(log p + H)) − g·onehot`` for ``BLOCK`` logits of one row."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    x = tl.load(logits + row * width + at, mask=real, other=0.0)
    if bias is not None:
        x += tl.load(bias + at, mask=real, other=0.0).to(tl.float32)
    x = x * scale - tl.load(total + row)
    g = tl.load(grad_logprobs + row)
    grad_logits = g
    if grad_entropy is not None:
        k = tl.load(grad_entropy + row)
        grad_logits = g + k * tl.load(entropy + row) + x * (k * 0.6931471805599453)
    grad_logits *= tl.exp2(x)
    grad_logits -= tl.where(at == tl.load(column + row), g, 0.0)
    tl.store(out + row * width + at, grad_logits.to(out.dtype.element_ty), mask=real)


FOLD: Any = triton.jit(_fold)
GRAD_LOGITS: Any = triton.jit(_grad_logits)
