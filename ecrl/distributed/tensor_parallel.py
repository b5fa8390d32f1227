"""Splits the layers of a transformers model over processes, after the plan that the model brings."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from ecrl.errors import UsageError


class _SplitHeads(ParallelStyle):
    """A norm with one weight for all heads, of which each process has some: its gradients add up."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_: nn.Module, inputs: tuple[Tensor, ...], mesh: DeviceMesh) -> Any:
            return (DTensor.from_local(inputs[0], mesh, [Shard(2)], run_check=False),)  # [B, L, heads, dim]

        def leave(_: nn.Module, output: Any, mesh: DeviceMesh) -> Tensor:
            local: Tensor = output.to_local()
            return local

        return distribute_module(module, device_mesh, None, enter, leave)  # type: ignore[arg-type]


#: By transformers' names of the styles.
STYLES: dict[str, Any] = {
    "colwise": lambda: ColwiseParallel(),
    "rowwise": lambda: RowwiseParallel(),
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "colwise_rep": lambda: ColwiseParallel(output_layouts=Replicate()),
    "embedding_rowwise": lambda: RowwiseParallel(input_layouts=Replicate()),
    "replicated_with_grad_allreduce": lambda: _SplitHeads(),
}


def split_layers(lm: Any, mesh: DeviceMesh) -> None:
    """Replace the planned layers' parameters by shards, in place.

    Args:
        lm: a transformers causal LM.
        mesh: one dimension, the processes that share every layer.

    Raises:
        UsageError: the model brings no plan, one that is not known here, or sizes that do not divide.
    """
    check_tensor_parallel(lm, mesh.size())
    head, embedding = lm.get_output_embeddings(), lm.get_input_embeddings()
    tied = head.weight is embedding.weight
    for name, module in list(lm.named_modules()):
        style = _style(lm, name)
        if style is not None:
            parallelize_module(module, mesh, STYLES[style]())
    if tied:
        head.weight = embedding.weight


def check_tensor_parallel(lm: Any, size: int) -> None:
    """Refuse what cannot be split; see ``split_layers``."""
    name = type(lm).__name__
    plan: dict[str, str] = lm._tp_plan or {}
    unknown = sorted(set(plan.values()) - STYLES.keys())
    if not plan or unknown:
        reason = f"plans {unknown}, unknown here" if plan else "has no plan"
        raise UsageError(
            f"trainer.tensor_parallel_size={size}: {name} {reason}; use 1 (Qwen2, Qwen3, Llama and Mistral "
            "can be split)."
        )
    for what in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        count = getattr(lm.config, what, size)
        if count % size:
            raise UsageError(
                f"trainer.tensor_parallel_size={size} does not divide {name}'s {what}={count}; choose a "
                "divisor."
            )


def _style(lm: Any, name: str) -> str | None:
    pattern = re.sub(r"\.\d+(?=\.|$)", ".*", name)
    style: str | None = lm._tp_plan.get(pattern)
    return style
