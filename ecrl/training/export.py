"""Writes the policy of a run's checkpoint as one whole model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ecrl.config.resume import resumed_config
from ecrl.config.schema import CheckpointConfig
from ecrl.distributed.lightning_strategies import load_trained
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.sharding import Sharding
from ecrl.policy.model import load_tokenizer, save_policy
from ecrl.runs.checkpoints import find_checkpoint, iteration_of
from ecrl.runs.metrics_file import read_summary
from ecrl.training.precision import BF16, precision_of
from ecrl.training.trainer import quiet
from ecrl.training.warmup import cached_base


def export(run_dir: Path, output: Path, which: str = "last") -> None:
    """Join the shards of a checkpoint in this process's memory, however many processes wrote them.

    Args:
        run_dir: the run directory.
        output: a new folder.
        which: ``last``, ``best`` or an iteration.

    Raises:
        UsageError: no such run, or it has no checkpoint.
    """
    quiet()
    config = resumed_config([f"resume={run_dir}"])
    checkpoint = find_checkpoint(run_dir, which, config.checkpoint.best)
    path = config.model.path or str(cached_base(config))
    tokenizer = load_tokenizer(path)
    cpu = torch.device("cpu")
    sharding = Sharding(bf16=precision_of(config) == BF16)  # the base is rounded as it was
    model = load_sharded_policy(path, tokenizer, config.model, sharding, cpu, config.seed)
    load_trained(model, checkpoint)
    save_policy(model, tokenizer, output)


@contextmanager
def exported_policy(run_dir: Path, settings: CheckpointConfig) -> Iterator[Path]:
    """Give the policy of a run's checkpoint: the one that the run exported where it is the same.

    Args:
        run_dir: the run directory.
        settings: ``load`` says which checkpoint, ``best`` by which metric.

    Raises:
        UsageError: there is no such checkpoint.
    """
    policy, summary = run_dir / "policy", read_summary(run_dir)
    checkpoint = find_checkpoint(run_dir, settings.load, settings.best)
    if policy.is_dir() and summary and summary.get("iterations") == iteration_of(checkpoint):
        yield policy
        return
    with tempfile.TemporaryDirectory(prefix="ecrl-policy-") as folder:
        export(run_dir, Path(folder) / "policy", settings.load)
        yield Path(folder) / "policy"
