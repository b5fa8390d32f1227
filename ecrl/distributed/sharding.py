"""Shards a policy over the processes with FSDP2 and tensor parallelism, or replicates it (DDP)."""

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
from ecrl.policy.decoder_layers import decoder_layers
from ecrl.policy.model import PolicyModel
from ecrl.policy.weights import full_tensor, local_tensor

BUCKET = 2**26  # elements of one all-reduce: large enough for full bandwidth, small beside the model


@dataclass(frozen=True)
class Sharding:
    """How the policy's parameters are distributed over the processes.

    Attributes:
        mesh: ``data_parallel × tensor_parallel`` ranks; None for one process without FSDP2.
        shard: whether each data-parallel rank holds a shard of every parameter (FSDP2), or else a copy. On a
            mesh of one process the shard is the whole, and FSDP2 gives the types of ``bf16``.
        bf16: whether the policy computes in bfloat16, whatever the type of its weights; sums of gradients
            over processes are float32.
        cpu_offload: whether shards are kept in host memory between uses.
    """

    mesh: DeviceMesh | None = None
    shard: bool = False
    bf16: bool = False
    cpu_offload: bool = False

    @property
    def splits(self) -> bool:
        """Whether each process holds only a part of the parameters."""
        if self.mesh is None or self.mesh.size() == 1:
            return False
        return self.shard or self.splits_layers

    @property
    def splits_layers(self) -> bool:
        """Whether tensor parallelism splits each layer."""
        return self.mesh is not None and self.mesh["tensor_parallel"].size() > 1

    @property
    def loss_scale(self) -> int:
        """Factor on the loss: FSDP averages gradients over ranks, but the loss is a sum over ranks."""
        return self._data_parallel.size() if self.shard else 1

    def apply(self, model: PolicyModel) -> None:
        """Split the layers, then shard the parameters, in place; they may be on the meta device.

        Raises:
            ValueError: the layers cannot be split over the tensor-parallel ranks.
        """
        if self.mesh is None:
            return
        tensor_mesh = self.mesh["tensor_parallel"]
        if tensor_mesh.size() > 1:
            split_layers(model.lm, tensor_mesh)
        if not self.shard:
            return
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        # Pinned memory serves copies to a GPU, so without a GPU it is not needed.
        pinned = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
        offload = pinned if self.cpu_offload else OffloadPolicy()
        # The root module is resharded after its forward pass too, so that all is sharded between passes.
        settings: dict[str, Any] = {
            "mesh": self._data_parallel,
            "offload_policy": offload,
            "reshard_after_forward": True,
        }
        if self.bf16:
            settings["mp_policy"] = policy
        for layer in decoder_layers(model.lm):
            fully_shard(layer, **settings)
        fully_shard(model, **settings)
        for method in ("generate", "check_head", "logits"):
            register_fsdp_forward_method(model, method)
        model.sharded = self._data_parallel.size() > 1

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of the copies, in place; FSDP has already reduced its own."""
        if self.mesh is None or self.shard or self._data_parallel.size() == 1:
            return
        gradients = [local_tensor(p.grad) for p in parameters if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = torch.cat([g.flatten() for g in bucket])
            dist.all_reduce(flat, group=self._data_parallel.get_group())
            for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))

    @property
    def _data_parallel(self) -> DeviceMesh:
        assert self.mesh is not None
        return self.mesh["data_parallel"]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the Euclidean norm of the whole gradient, the same on every process.

    Parameters may be DTensors on different meshes, or plain tensors.
    """
    by_mesh: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            key = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
            by_mesh.setdefault(key, []).append(parameter.grad)
    parts = [full_tensor(torch.nn.utils.get_total_norm(gradients)) for gradients in by_mesh.values()]
    return torch.linalg.vector_norm(torch.stack(parts)) if len(parts) != 1 else parts[0]


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, limit: float) -> None:
    """Scale the gradient in place so that its ``norm``, which is given, does not exceed the limit."""
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            local = local_tensor(parameter.grad)
            local.mul_(scale.to(local.device))


def _buckets(tensors: list[Tensor]) -> Iterable[list[Tensor]]:
    """Yield consecutive tensors of together at most ``BUCKET`` elements, or a single larger one."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
