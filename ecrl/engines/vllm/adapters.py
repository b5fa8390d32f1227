"""The adapter of a run in vLLM: every request of a server that was started for adapters names it.

Each weight sync replaces it. While there is none, or a run sends merged weights, it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from torch import Tensor, nn

from ecrl.engines.checksum import WORD
from ecrl.engines.vllm.held_weights import Held, Packing, Shapes
from ecrl.errors import UsageError

_ID = 1  # vLLM counts from 1


def engine_arguments(rank: int) -> dict[str, Any]:
    """Return the arguments with which vLLM takes one adapter.

    Args:
        rank: the largest rank.

    Raises:
        UsageError: vLLM has no adapters of this rank.
    """
    from vllm.config.lora import MaxLoRARanks

    most = next((known for known in sorted(get_args(MaxLoRARanks)) if known >= rank), None)
    if most is None:
        largest = max(get_args(MaxLoRARanks))
        raise UsageError(
            f"model.lora.r={rank} is beyond vLLM's adapters, which have a rank of up to {largest}; leave it "
            "out, so that the run sends its adapters merged into whole weights."
        )
    return {"enable_lora": True, "max_lora_rank": most, "max_loras": 1, "max_cpu_loras": 1}


def adapter_request() -> Any:
    """Return what a request says to be drawn with the adapter; vLLM never looks for it on disk."""
    from vllm.lora.request import LoRARequest

    return LoRARequest("run", _ID, "run")


def clear_adapter(runner: Any) -> None:
    """Let the adapter of one of vLLM's workers change nothing.

    Args:
        runner: the worker's model runner.
    """
    _manager(runner).remove_adapter(_ID)
    runner.lora_manager.add_dummy_lora(adapter_request(), rank=1)  # of zeros
    _manager(runner).activate_adapter(_ID)


def set_adapter(runner: Any, factors: Mapping[str, Tensor]) -> None:
    """Replace the adapter of one of vLLM's workers.

    Args:
        runner: the worker's model runner.
        factors: see ``lora.factors``.
    """
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    rank = max(len(factor) for name, factor in factors.items() if ".lora_A." in name)
    # B comes with its scale α/r, so that of vLLM is 1.
    settings = PEFTHelper(r=rank, lora_alpha=rank, target_modules=[])
    adapter = LoRAModel.from_lora_tensors(
        _ID, dict(factors), settings, device="cpu", dtype=runner.lora_config.lora_dtype
    )
    _manager(runner).remove_adapter(_ID)
    _manager(runner).add_adapter(adapter)
    _manager(runner).activate_adapter(_ID)


def adaptable_layers(runner: Any, packing: Packing) -> list[str]:
    """Return the last parts of the checkpoint's names of the layers that can have an adapter."""
    layers = {name.rpartition(".")[2] for name in _manager(runner).modules}
    return sorted({part for layer in layers for part in packing.get(layer, [layer])})


def find_factors(model: nn.Module, packing: Packing, shapes: Shapes) -> Iterator[tuple[str, Held]]:
    """Find the adapter's factors in the tensors that vLLM's forward pass reads.

    A worker of a tensor-parallel engine holds A whole and rows of B, or columns of A and B whole.

    Args:
        model: vLLM's model, or a worker's part of it.
        packing: see ``find_weights``.
        shapes: shapes of the factors, by their names.
    """
    for name, module in model.named_modules():
        prefix, _, layer = name.rpartition(".")
        for number, part in enumerate(packing.get(layer, [layer])):
            a, b = (f"{prefix}.{part}.lora_{factor}.weight" for factor in "AB")
            if a in shapes and b in shapes and hasattr(module, "lora_a_stacked"):
                rank = shapes[a][0]
                shard = getattr(module, "tp_rank", 0)
                columns = module.lora_a_stacked[number][0, 0, :rank]
                rows = module.lora_b_stacked[number][0, 0, :, :rank]
                # With fewer key heads than workers, several workers hold the same one.
                copies = getattr(module, "num_kv_head_replicas", 1) if number else 1
                column = shard * columns.shape[1] if columns.shape[1] < shapes[a][1] else 0
                row = shard // copies * len(rows) if len(rows) < shapes[b][0] else 0
                if len(columns) == rank and column * columns.element_size() % WORD == 0:
                    yield a, Held(columns, 0, column)
                    yield b, Held(rows, row, 0)


def _manager(runner: Any) -> Any:
    return runner.lora_manager._adapter_manager
