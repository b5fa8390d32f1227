"""Spreads a policy over the processes: FSDP2, copies, and tensor parallelism."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from ecrl.distributed.tensor_parallel import split_layers
from ecrl.policy.model import PolicyModel

BUCKET = 2**26  # elements of a flat all-reduce: large enough for bandwidth, small beside the model


@dataclass(frozen=True)
class Sharding:
    """How the policy lies over the processes.

    Attributes:
        mesh: ``data_parallel × tensor_parallel`` ranks; None for one process.
        shard: each data-parallel rank holds a part of every parameter (FSDP2), else a copy.
        bf16: compute in bfloat16; weights, gradient sums and optimizer stay float32.
        cpu_offload: shards lie in host memory between uses.
    """

    mesh: DeviceMesh | None = None
    shard: bool = False
    bf16: bool = False
    cpu_offload: bool = False

    @property
    def splits(self) -> bool:
        """Whether no process holds whole parameters."""
        return self.mesh is not None and (self.shard or self.mesh["tensor_parallel"].size() > 1)

    @property
    def loss_scale(self) -> int:
        """What the loss is multiplied with: FSDP takes the mean over ranks where the sum is meant."""
        return self._data.size() if self.shard else 1

    def apply(self, model: PolicyModel) -> None:
        """Split, then shard the model's parameters in place; on the meta device or filled."""
        if self.mesh is None:
            return
        tensor_mesh = self.mesh["tensor_parallel"]
        if tensor_mesh.size() > 1:
            split_layers(model.lm, tensor_mesh)
        if not self.shard:
            return
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        # Memory is pinned for copies to a GPU; without one there is nothing to pin it for.
        pinned = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
        offload = pinned if self.cpu_offload else OffloadPolicy()
        # The root too is resharded after its forward pass, so that outside passes all is sharded.
        settings: dict[str, Any] = {
            "mesh": self._data,
            "offload_policy": offload,
            "reshard_after_forward": True,
        }
        if self.bf16:
            settings["mp_policy"] = policy
            model.computes_in_bf16 = True
        for layer in decoder_layers(model.lm):
            fully_shard(layer, **settings)
        fully_shard(model, **settings)
        for method in ("generate", "check_head", "logits"):
            register_fsdp_forward_method(model, method)
        model.sharded = True

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the copies' gradients; FSDP has done so in its backward pass."""
        if self.mesh is None or self.shard or self._data.size() == 1:
            return
        gradients = [_local(p.grad) for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([g.flatten() for g in bucket])
            dist.all_reduce(flat, group=self._data.get_group())
            for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    @property
    def _data(self) -> DeviceMesh:
        assert self.mesh is not None
        return self.mesh["data_parallel"]


def decoder_layers(lm: nn.Module) -> list[nn.Module]:
    """Return the layers that transformers says must not be split: the units of sharding."""
    names = set(getattr(lm, "_no_split_modules", None) or ())
    layers = [m for m in lm.modules() if type(m).__name__ in names]
    if layers:
        return layers
    stacks = [list(m) for m in lm.modules() if isinstance(m, nn.ModuleList)]
    return max(stacks, key=len, default=[])


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of the whole gradient, whatever each part's mesh; the same on every process."""
    norms: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            key = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
            norms.setdefault(key, []).append(parameter.grad)
    parts = [torch.nn.utils.get_total_norm(gradients) for gradients in norms.values()]
    whole = [p.full_tensor() if isinstance(p, DTensor) else p for p in parts]
    return torch.linalg.vector_norm(torch.stack(whole)) if len(whole) != 1 else whole[0]


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, limit: float) -> None:
    """Scale the whole gradient, whose norm is given, down to the limit."""
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            local = _local(parameter.grad)
            local.mul_(scale.to(local.device))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _buckets(tensors: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
