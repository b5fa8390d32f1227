"""Whether the processes can split, adapt and hold the model, found before anything is loaded."""

from __future__ import annotations

import os

import torch

from ecrl.config.schema import Config
from ecrl.distributed.tensor_parallel import check_tensor_parallel
from ecrl.errors import UsageError, usage_errors
from ecrl.policy.lora import check_targets
from ecrl.policy.meta_model import meta_model

_GIB = 2**30
_FULL = 4  # bytes of a float32 number
_STATE = 4  # numbers of a trained parameter: weight, gradient, AdamW's two moments


def check_size(config: Config, training: bool = True) -> None:
    """Refuse a model that cannot be split or adapted as asked, or whose resident state alone is too large.

    The state is a lower bound of what a run needs; `ecrl plan` counts the rest. A hub id whose config is not
    here yet is left for the loading to judge.

    Raises:
        UsageError: says the sizes.
    """
    try:
        lm = meta_model(config.model)
    except UsageError:
        if config.model.path is None:
            raise
        return
    if config.model.lora.r:
        check_targets(lm, config.model.lora)
    trainer = config.trainer
    if trainer.tensor_parallel_size > 1:
        with usage_errors("trainer."):
            check_tensor_parallel(lm, trainer.tensor_parallel_size)
    parameters = sum(p.numel() for p in lm.parameters())
    numbers = _STATE if training and not config.model.lora.r else 1  # adapters add next to nothing
    processes = trainer.devices * trainer.num_nodes
    split = trainer.tensor_parallel_size if trainer.parallel == "ddp" else processes
    need, have = _FULL * numbers * parameters / split, _memory(config)
    if need > have:
        what = "weights, gradients and AdamW's moments" if numbers == _STATE else "weights"
        raise UsageError(
            f"The model is too large: the {what} of its {parameters:.3g} parameters take {need / _GIB:.1f} "
            f"GiB in each process (processes={processes}, trainer.parallel={trainer.parallel}), which has "
            f"{have / _GIB:.1f} GiB; ask `ecrl plan` for what would do."
        )


def _memory(config: Config) -> float:
    """Bytes that one process has for the model's state."""
    trainer = config.trainer
    if trainer.accelerator != "cpu" and torch.cuda.is_available() and not trainer.cpu_offload:
        return float(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / trainer.devices
