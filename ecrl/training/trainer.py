"""Lightning's trainer with the settings that every command shares, and the processes that it joins."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from transformers.utils.logging import disable_progress_bar

from ecrl.config.schema import Config
from ecrl.distributed.launch import processes
from ecrl.distributed.lightning_strategies import MeshStrategy, SingleProcessStrategy
from ecrl.distributed.process_group import ProcessGroup
from ecrl.errors import UsageError
from ecrl.training.precision import casts_by_fsdp, precision_of


def make_trainer(config: Config, **kwargs: Any) -> L.Trainer:
    """Make a Lightning trainer.

    Args:
        config: the whole configuration.
        **kwargs: further settings of ``lightning.Trainer``.

    Raises:
        UsageError: Lightning knows no such accelerator or precision, or it is not on this machine.
    """
    settings, count = config.trainer, processes(config)
    precision: Any = precision_of(config)
    strategy: Any = SingleProcessStrategy()
    if count > 1 or casts_by_fsdp(config):
        strategy = MeshStrategy(count, settings.tensor_parallel_size, settings.timeout)
    if casts_by_fsdp(config):
        precision = "32-true"  # for Lightning, which would autocast beside FSDP
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=strategy,
            precision=precision,
            logger=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            **kwargs,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {error}") from None


def connect(trainer: L.Trainer, config: Config) -> ProcessGroup:
    """Join the run's other processes, if there are any."""
    if isinstance(trainer.strategy, MeshStrategy):
        trainer.strategy.setup_environment()
    return ProcessGroup(config.trainer.tensor_parallel_size, config.trainer.timeout)


def quiet() -> None:
    """Silence the libraries' messages about themselves; our own messages stay."""
    redistribution = "torch.distributed.tensor._redistribute"  # warns of every gathered shard
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "transformers", redistribution):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"lightning\.")
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    torch.set_float32_matmul_precision("highest")
