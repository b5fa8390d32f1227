"""Lightning's strategies, with one checkpoint format for any number of processes.

Weights and optimizer state are saved as a torch distributed checkpoint under their parameters' names, so
that a run of two processes can continue in one, and the reverse. Everything else in Lightning's checkpoint
is saved in one file beside it.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _init_dist_connection as join
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, SingleDeviceStrategy
from torch._C._distributed_c10d import HashStore
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

from ecrl.distributed.safe_reading import DataOnlyPlanner, DataOnlyReader
from ecrl.errors import EcrlError, UsageError

PROGRESS_FILE = "progress.pt"


class _DistributedCheckpoint:
    """Saves and restores state by parameter name; each process handles its own shards."""

    #: By default Lightning restores before it has made the optimizer.
    restore_checkpoint_after_setup = True
    lightning_restore_optimizer = False

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return this process's shards of each model's trained parameters, by the model's name."""
        return {name: trained_state(root) for name, root in self._roots.items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return this process's shards of the optimizer's state."""
        plain = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return get_optimizer_state_dict(self._trained_by(plain), plain)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write a checkpoint folder; every process writes its own shards.

        Raises:
            EcrlError: a process could not write; raised on every process.
        """
        folder = Path(filepath)
        tensors = dict(checkpoint.pop("state_dict"))
        for number, state in enumerate(checkpoint.pop("optimizer_states", [])):
            tensors[f"optimizer_{number}"] = state
        failure: str | None = None  # exchanged below, so that all processes raise or none
        try:
            save_tensors(tensors, checkpoint_id=folder, no_dist=not dist.is_initialized())
            if self.is_global_zero:  # type: ignore[attr-defined]
                torch.save(checkpoint, folder / PROGRESS_FILE)
        except (OSError, RuntimeError, CheckpointException, pickle.PicklingError) as raised:
            failure = _root_cause(raised)
        failures = [f for f in _gather(failure) if f]
        if failures:
            error = EcrlError(
                f"The checkpoint {folder} could not be written: {failures[0]}. An earlier complete "
                "checkpoint, if any, is kept."
            )
            error.said_elsewhere = not self.is_global_zero  # type: ignore[attr-defined]
            raise error

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Restore weights and optimizers in place; return the rest of the checkpoint."""
        folder = Path(checkpoint_path)
        for name, root in self._roots.items():
            load_trained(root, folder, name)
        for number in range(len(self.optimizers)):  # type: ignore[attr-defined]
            self.load_optimizer(number, number, folder)
        return load_progress(folder)

    def load_optimizer(self, number: int, saved: int, folder: Path) -> None:
        """Restore the state of an optimizer in place; its settings stay those of the configuration.

        Args:
            number: which optimizer.
            saved: its number in the checkpoint.
            folder: the checkpoint.
        """
        optimizer = self.optimizers[number]  # type: ignore[attr-defined]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        key, root = f"optimizer_{saved}", self._trained_by(optimizer)
        moments: dict[str, Any] = {key: get_optimizer_state_dict(root, optimizer)}
        _read(moments, folder)
        set_optimizer_state_dict(root, optimizer, moments[key])
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Do nothing: ``load_checkpoint`` has done it."""

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Do nothing: ``load_checkpoint`` has done it."""

    def _trained_by(self, optimizer: torch.optim.Optimizer) -> torch.nn.Module:
        """Return the model that an optimizer trains; each has one of its own."""
        first = optimizer.param_groups[0]["params"][0]
        (root,) = (m for m in self._roots.values() if any(p is first for p in m.parameters()))
        return root

    @property
    def _roots(self) -> dict[str, torch.nn.Module]:
        """The models of the module by name: the policy, ``model``, and auxiliary ones."""
        return dict(self.lightning_module.named_children())  # type: ignore[attr-defined]


class SingleProcessStrategy(_DistributedCheckpoint, SingleDeviceStrategy):
    """One process on one device: the first of the accelerator that Lightning chose."""

    @property
    def root_device(self) -> torch.device:
        """The device that computes."""
        accelerator: Any = self.accelerator
        device: torch.device = accelerator.get_parallel_devices(accelerator.parse_devices(1))[0]
        return device

    def teardown(self) -> None:
        """Leave the model on its device: it is validated, trained and exported one after the other."""


class MeshStrategy(_DistributedCheckpoint, ModelParallelStrategy):
    """Processes on a mesh of data-parallel × tensor-parallel ranks; one process is a mesh of its own.

    Args:
        processes: number of processes of the run.
        tensor_parallel_size: number of processes that split each layer.
        timeout: seconds after which a silent process is an error.
    """

    def __init__(self, processes: int, tensor_parallel_size: int, timeout: float) -> None:
        # Offloaded shards are reduced in host memory, so CUDA runs need gloo too.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        super().__init__(process_group_backend=backend, timeout=timedelta(seconds=timeout))
        self._shape = processes // tensor_parallel_size, tensor_parallel_size
        self._alone = processes == 1

    def _configure_launcher(self) -> None:
        """Start no process where one is all."""
        if not self._alone:
            super()._configure_launcher()

    def setup_environment(self) -> None:
        """Create the process group and the mesh once; validation and training share them."""
        if self._device_mesh is None:
            self._setup_distributed()
            self._device_mesh = init_device_mesh(
                self.root_device.type, self._shape, mesh_dim_names=("data_parallel", "tensor_parallel")
            )
        if self.lightning_module is not None:
            self.lightning_module._device_mesh = self._device_mesh

    def _setup_distributed(self) -> None:
        """Join the other processes as Lightning does, but without binding NCCL to a device.

        A bound group makes its subgroups by splits that all its ranks must join, and vLLM makes subgroups
        within its own: https://github.com/pytorch/pytorch/issues/145376.
        """
        super(ModelParallelStrategy, self).setup_environment()
        reset_seed()
        self.set_world_ranks()
        assert self.cluster_environment is not None
        if self._alone:
            be_a_group_of_one(self._get_process_group_backend())
            return
        join(self.cluster_environment, self._get_process_group_backend(), timeout=self._timeout)

    def model_to_device(self) -> None:
        """Do nothing: the model is built on its device, which may be host memory."""


def be_a_group_of_one(backend: str) -> None:
    """Make this process a group by itself, without a port; runs of one process that follow share it."""
    if not dist.is_initialized():
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)


def trained_state(root: torch.nn.Module) -> dict[str, Any]:
    """Return this process's shards of the trained parameters; with adapters, the base is left out."""
    trained = {n for n, p in root.named_parameters(remove_duplicate=False) if p.requires_grad}
    state = get_model_state_dict(root)
    return {name: tensor for name, tensor in state.items() if name in trained}


def load_trained(root: torch.nn.Module, folder: Path, name: str = "model") -> None:
    """Load a model's trained parameters from a checkpoint written by any number of processes.

    Args:
        root: the model.
        folder: the checkpoint.
        name: of the model in it; the policy's by default.
    """
    state: dict[str, Any] = {name: trained_state(root)}
    _read(state, folder)
    set_model_state_dict(root, state[name], options=StateDictOptions(strict=False))


def _read(tensors: dict[str, Any], folder: Path) -> None:
    """Load tensors in place from a checkpoint.

    Raises:
        UsageError: the checkpoint lacks one of them, or holds one of another shape.
    """
    reader, planner = DataOnlyReader(folder), DataOnlyPlanner()
    try:
        load_tensors(tensors, storage_reader=reader, planner=planner, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        raise UsageError(
            f"{folder} is no checkpoint of this model: {_root_cause(error).rstrip('.')}. Restore the run's "
            "own checkpoint and model.path."
        ) from None


def load_progress(folder: Path) -> dict[str, Any]:
    """Read the part of a checkpoint without tensors: counters, states of strategies, and so on.

    Raises:
        UsageError: it holds more than data.
    """
    try:
        content: dict[str, Any] = torch.load(folder / PROGRESS_FILE, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{folder / PROGRESS_FILE} is not loaded, because it holds more than data: {_root_cause(error)}"
        ) from None
    return content


def _gather(failure: str | None) -> list[str | None]:
    """Return every process's failure."""
    if not dist.is_initialized():
        return [failure]
    failures: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(failures, failure)
    return failures


def _root_cause(error: BaseException) -> str:
    """Return the first line of the error that caused the others."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]
