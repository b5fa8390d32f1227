"""An LM head whose vocabulary is sharded over the processes of a tensor-parallel group."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from ecrl.policy.lm_head.tiles import rebase


@dataclass(frozen=True)
class VocabShard:
    """The part of the vocabulary that this process's weight and bias hold.

    The shards of a group must cover the vocabulary without overlap; their sizes may differ, and may be 0.
    Every process of the group must make the same calls with the same hidden states, targets and upstream
    gradients.

    Attributes:
        start: token id of the first row held here.
        group: the processes that together hold the whole vocabulary.
    """

    start: int
    group: dist.ProcessGroup

    def combine(self, state: Tensor) -> None:
        """Turn a shard's state ``[4, N]`` (see :func:`.tiles.scan`) into the whole vocabulary's, in place."""
        maxima = state[:2].clone()
        dist.all_reduce(maxima, dist.ReduceOp.MAX, group=self.group)
        rebase(state, maxima[0])
        state[1] = maxima[1]
        dist.all_reduce(state[2:], group=self.group)

    def sum(self, gradient: Tensor) -> Tensor:
        """Sum over the group, in place."""
        dist.all_reduce(gradient, group=self.group)
        return gradient


def unwrap(
    weight: Tensor, bias: Tensor | None, vocabulary: VocabShard | None
) -> tuple[Tensor, Tensor | None, VocabShard | None]:
    """Replace an LM head of DTensors by its local rows and their place; return any other unchanged.

    The gradients of the DTensors are DTensors of the same placement.

    Raises:
        ValueError: it is not sharded by rows over a mesh of one dimension.
    """
    if not isinstance(weight, DTensor):
        return weight, bias, vocabulary
    for tensor in [weight] if bias is None else [weight, bias]:
        if not isinstance(tensor, DTensor) or tensor.placements != (Shard(0),):
            placed = tensor.placements if isinstance(tensor, DTensor) else "a plain tensor"
            raise ValueError(
                f"token_stats got a distributed LM head with a part placed as {placed}; it takes weight and "
                "bias both as (Shard(0),) over a mesh of one dimension. Under FSDP, call it inside forward."
            )
    mesh = weight.device_mesh
    # Shard(0) cuts as torch.chunk does: equal parts, the last ones smaller or empty.
    rows = -(-weight.shape[0] // mesh.size())
    start = min(rows * mesh.get_local_rank(), weight.shape[0])
    local_bias = bias.to_local() if isinstance(bias, DTensor) else None
    return weight.to_local(), local_bias, VocabShard(start, mesh.get_group())
