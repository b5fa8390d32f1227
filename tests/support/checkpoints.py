"""What a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoModelForCausalLM

from ecrl.runs.checkpoints import saved_iterations


def exported(folder: Path) -> dict[str, Tensor]:
    """Weights as transformers reads them."""
    state: dict[str, Tensor] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return state


def checkpoint_tensors(run_dir: Path, name: str | None = None) -> dict[str, Tensor]:
    """Weights and optimizer state of a checkpoint, the last if none is named, whole, by dotted name."""
    name = name or str(saved_iterations(run_dir)[-1])
    file = run_dir / f"{name}.pt"
    dcp_to_torch_save(run_dir / "checkpoints" / name, file)
    tensors: dict[str, Tensor] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                walk(child, f"{prefix}.{key}" if prefix else str(key))
        elif isinstance(node, Tensor):
            tensors[prefix] = node

    walk(torch.load(file), "")
    file.unlink()
    return tensors
