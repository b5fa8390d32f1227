"""Lightning's strategies, with one checkpoint format for any number of processes.

Weights and optimizer state go into a torch distributed checkpoint under their parameters' names, so
that a run of two processes goes on in one and back; all else that Lightning keeps goes into one file
beside it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors
from torch.distributed.device_mesh import init_device_mesh

from ecrl.errors import EcrlError, UsageError

PROGRESS_FILE = "progress.pt"


class _NamedStates:
    """Keeps and restores states by parameter name, shards staying where they are."""

    #: Lightning restores before it has made the optimizer, unless told otherwise.
    restore_checkpoint_after_setup = True
    lightning_restore_optimizer = False

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return this process's shards of what is trained."""
        return trained_state(self._root)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return this process's shards of the optimizer's state."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return get_optimizer_state_dict(self._root, plain)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint folder; every process writes its own shards.

        Raises:
            EcrlError: on every process, if any could not write.
        """
        folder = Path(filepath)
        tensors = {"model": checkpoint.pop("state_dict")}
        for number, state in enumerate(checkpoint.pop("optimizer_states", [])):
            tensors[f"optimizer_{number}"] = state
        failure: str | None = None
        try:
            save_tensors(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
            if self.is_global_zero:  # type: ignore[attr-defined]
                torch.save(checkpoint, folder / PROGRESS_FILE)
        except (OSError, RuntimeError, CheckpointException, pickle.PicklingError) as raised:
            failure = _cause(raised)
        failures = [f for f in _everyone(failure) if f]
        if failures:
            error = EcrlError(
                f"The checkpoint {folder} could not be written: {failures[0]}. A whole one from "
                "before, if any, stays."
            )
            error.said_elsewhere = not self.is_global_zero  # type: ignore[attr-defined]
            raise error

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Restore weights and optimizers in place; return the rest."""
        folder = Path(checkpoint_path)
        load_trained(self._root, folder)
        for number, optimizer in enumerate(self.optimizers):  # type: ignore[attr-defined]
            key = f"optimizer_{number}"
            moments: dict[str, Any] = {key: get_optimizer_state_dict(self._root, optimizer)}
            _read(moments, folder)
            set_optimizer_state_dict(self._root, optimizer, moments[key])
        return load_progress(folder)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Do nothing: ``load_checkpoint`` did."""

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Do nothing: ``load_checkpoint`` did."""

    @property
    def _root(self) -> torch.nn.Module:
        root: torch.nn.Module = self.lightning_module.model  # type: ignore[attr-defined]
        return root


class SingleProcessStrategy(_NamedStates, SingleDeviceStrategy):
    """One process on one device."""


class MultiProcessStrategy(_NamedStates, ModelParallelStrategy):
    """Many processes on a mesh of data-parallel × tensor-parallel ranks.

    Args:
        processes: of the whole run.
        tensor_parallel_size: processes that split every layer among them.
        timeout: seconds after which a silent process is an error.
    """

    def __init__(self, processes: int, tensor_parallel_size: int, timeout: float) -> None:
        # Offloaded shards are summed in host memory, so CUDA runs need gloo as well.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        super().__init__(process_group_backend=backend, timeout=timedelta(seconds=timeout))
        self._shape = processes // tensor_parallel_size, tensor_parallel_size

    def setup_environment(self) -> None:
        """Start the processes' group and mesh once; validation and training share them."""
        if self._device_mesh is None:
            self._setup_distributed()
            self._device_mesh = init_device_mesh(
                self.root_device.type, self._shape, mesh_dim_names=("data_parallel", "tensor_parallel")
            )
        if self.lightning_module is not None:
            self.lightning_module._device_mesh = self._device_mesh

    def model_to_device(self) -> None:
        """Do nothing: the model is made where it belongs, which may be the host's memory."""


def trained_state(root: torch.nn.Module) -> dict[str, Any]:
    """This process's shards of what is trained: under adapters the base does not change."""
    frozen = {n for n, p in root.named_parameters(remove_duplicate=False) if not p.requires_grad}
    state = get_model_state_dict(root)
    return {name: tensor for name, tensor in state.items() if name not in frozen}


def load_trained(root: torch.nn.Module, folder: Path) -> None:
    """Fill what is trained from a checkpoint that any number of processes wrote."""
    state: dict[str, Any] = {"model": trained_state(root)}
    _read(state, folder)
    set_model_state_dict(root, state["model"], options=StateDictOptions(strict=False))


def _read(tensors: dict[str, Any], folder: Path) -> None:
    """Fill tensors in place from a checkpoint.

    Raises:
        UsageError: it lacks one of them, or holds one of another shape.
    """
    try:
        load_tensors(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise UsageError(
            f"{folder} is no checkpoint of this model: {_cause(error).rstrip('.')}. Put back the run's own "
            "checkpoint and model.path."
        ) from None


def load_progress(folder: Path) -> dict[str, Any]:
    """Read what a checkpoint holds beside weights and optimizer: counters, strategies' states, …"""
    content: dict[str, Any] = torch.load(folder / PROGRESS_FILE, map_location="cpu", weights_only=True)
    return content


def _everyone(failure: str | None) -> list[str | None]:
    if not dist.is_initialized():
        return [failure]
    answers: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(answers, failure)
    return answers


def _cause(error: BaseException) -> str:
    """The first line of what went wrong at the bottom."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]
