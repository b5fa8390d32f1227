"""``ecrl export RUN OUTPUT``: the policy of a run's last checkpoint, whole, in HF format."""

from __future__ import annotations

from pathlib import Path

import torch

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.resume import resumed_config
from ecrl.distributed.lightning_strategies import load_trained
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.sharding import Sharding
from ecrl.errors import UsageError
from ecrl.policy.model import load_tokenizer, save_policy
from ecrl.training.checkpoint import find_checkpoint
from ecrl.training.trainer import quiet
from ecrl.training.warmup import cached_base

COMMAND = Command(
    name="export",
    help="""ecrl export: the policy of a run's last checkpoint, whole, in HF format

  ecrl export RUN OUTPUT               RUN: a run directory; OUTPUT: a new folder
""",
    settings=NoSettings,
    words=True,
)


def main(arguments: Arguments[NoSettings]) -> int:
    """Export, and say where."""
    words = arguments.words
    if len(words) != 2:
        raise UsageError(f"`ecrl export RUN OUTPUT` takes two folders, got {len(words)}.")
    run_dir, output = map(Path, words)
    if output.exists():
        raise UsageError(f"{str(output)!r} exists already and nothing is overwritten; choose another.")
    export(run_dir, output)
    print(f"Policy: {output}")
    return 0


def export(run_dir: Path, output: Path) -> None:
    """Join the shards of a run's last checkpoint in this process's memory, however many processes wrote them.

    Raises:
        UsageError: no such run, or it has no checkpoint.
    """
    quiet()
    config = resumed_config([f"resume={run_dir}"])
    checkpoint = find_checkpoint(run_dir)
    path = config.model.path or str(cached_base(config))
    tokenizer = load_tokenizer(path)
    cpu = torch.device("cpu")
    model = load_sharded_policy(path, tokenizer, config.model, Sharding(), cpu, config.seed)
    load_trained(model, checkpoint)
    save_policy(model, tokenizer, output)
