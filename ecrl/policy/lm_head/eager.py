"""Element-wise work on a tile by plain torch operations, in place in two buffers.

On a CPU a tile stays in the cache, so this costs little beside the matrix products. There ``exp2`` is several
times faster than ``exp``, and ``exp`` becomes ten times slower when it underflows.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from ecrl.policy.lm_head.tiles import Tile, Upstream, rebase


class Eager:
    """See :class:`ecrl.policy.lm_head.tiles.Backend`.

    Args:
        elements: number of elements of the largest tile.
        dtype: type of the logits.
        device: device of the tiles.
    """

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device) -> None:
        self.buffers = torch.empty(2, elements, dtype=dtype, device=device)

    def fold(self, tile: Tile, state: Tensor) -> None:
        """See ``Backend.fold``."""
        top, chosen, mass, moment = state
        logits, powers = self.logits(tile)
        where, inside = _locate(tile)
        chosen.copy_(logits.gather(1, where).where(inside, chosen[:, None]).squeeze(1))
        rebase(state, torch.maximum(top, logits.amax(1)))
        logits.sub_(top[:, None])
        torch.exp2(logits, out=powers)
        mass.add_(powers.sum(1))
        moment.add_(powers.mul_(logits).sum(1))

    def grad_logits(self, tile: Tile, upstream: Upstream) -> Tensor:
        """See ``Backend.grad_logits``."""
        logits, spare = self.logits(tile)
        grad_logits = upstream.grad_logprobs[:, None]
        logits.sub_(upstream.total[:, None])
        if upstream.grad_entropy is None:
            logits.exp2_().mul_(grad_logits)
        else:
            torch.exp2(logits, out=spare)
            grad_entropy = upstream.grad_entropy[:, None]
            logits.mul_(grad_entropy * log(2)).add_(
                grad_logits + grad_entropy * upstream.entropy[:, None]
            ).mul_(spare)
        where, inside = _locate(tile)
        logits.scatter_add_(1, where, inside * -grad_logits)
        return logits.to(tile.hidden.dtype)

    def logits(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """Return the logits of a tile in bits, and a second buffer of their shape."""
        shape = len(tile.hidden), len(tile.weight)
        logits, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in self.buffers)
        if tile.hidden.dtype == logits.dtype:
            logits.addmm_(tile.hidden, tile.weight.T, beta=0, alpha=tile.scale)
        else:
            product = torch.mm(tile.hidden, tile.weight.T, out_dtype=logits.dtype)
            torch.mul(product, tile.scale, out=logits)
        if tile.bias is not None:
            logits.add_(tile.bias, alpha=tile.scale)
        return logits, spare


def _locate(tile: Tile) -> tuple[Tensor, Tensor]:
    """Return the column ``[n, 1]`` of each target in a tile, and whether the target is in this tile."""
    column = tile.column[:, None]
    inside = (column >= 0) & (column < len(tile.weight))
    return column.where(inside, 0), inside
