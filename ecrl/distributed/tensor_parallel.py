"""Splits the layers of a transformers model over processes, by the model's own tensor-parallel plan."""

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


class _SplitHeads(ParallelStyle):
    """A norm whose weight all heads share; each process has some of the heads, so gradients are summed."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_: nn.Module, inputs: tuple[Tensor, ...], mesh: DeviceMesh) -> Any:
            return (DTensor.from_local(inputs[0], mesh, [Shard(2)], run_check=False),)  # [B, L, heads, dim]

        def leave(_: nn.Module, output: Any, mesh: DeviceMesh) -> Tensor:
            local: Tensor = output.to_local()
            return local

        return distribute_module(module, device_mesh, None, enter, leave)  # type: ignore[arg-type]


#: Parallel styles by transformers' names.
STYLES: dict[str, Any] = {
    "colwise": lambda: ColwiseParallel(),
    "rowwise": lambda: RowwiseParallel(),
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "colwise_rep": lambda: ColwiseParallel(output_layouts=Replicate()),
    "embedding_rowwise": lambda: RowwiseParallel(input_layouts=Replicate()),
    "replicated_with_grad_allreduce": lambda: _SplitHeads(),
}


def split_layers(lm: Any, mesh: DeviceMesh) -> None:
    """Replace the parameters of the layers in the model's plan by shards, in place.

    Args:
        lm: a transformers causal LM.
        mesh: one dimension: the processes that split each layer.

    Raises:
        ValueError: see ``check_tensor_parallel``.
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


def check_tensor_parallel(lm: Any, tensor_parallel_size: int) -> None:
    """Refuse a model whose layers cannot be split.

    Args:
        lm: a transformers causal LM.
        tensor_parallel_size: number of processes that split each layer.

    Raises:
        ValueError: the model has no plan, its plan has a style that is not in ``STYLES``, or the number
            does not divide the model's sizes.
    """
    name = type(lm).__name__
    plan: dict[str, str] = lm._tp_plan or {}
    unknown = sorted(set(plan.values()) - STYLES.keys())
    if not plan or unknown:
        reason = f"has a plan with unknown styles {unknown}" if plan else "has no plan"
        raise ValueError(
            f"tensor_parallel_size={tensor_parallel_size}: {name} {reason}; use 1 (Qwen2, Qwen3, Llama and "
            "Mistral can be split)."
        )
    for what in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        count = getattr(lm.config, what, tensor_parallel_size)
        if count % tensor_parallel_size:
            raise ValueError(
                f"tensor_parallel_size={tensor_parallel_size} does not divide {name}'s {what}={count}; "
                "choose a divisor."
            )


def _style(lm: Any, name: str) -> str | None:
    """Return the planned style of a module; the plan has ``*`` in place of layer numbers."""
    pattern = re.sub(r"\.\d+(?=\.|$)", ".*", name)
    style: str | None = lm._tp_plan.get(pattern)
    return style
