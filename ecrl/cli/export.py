"""``ecrl export RUN OUTPUT``: the policy of one of a run's checkpoints, whole, in HF format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import LIMIT, WhichCheckpoint
from ecrl.config.resume import resumed_config
from ecrl.distributed.lightning_strategies import load_trained
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.sharding import Sharding
from ecrl.errors import UsageError
from ecrl.policy.model import load_tokenizer, save_policy
from ecrl.runs.checkpoints import find_checkpoint
from ecrl.training.precision import BF16, precision_of
from ecrl.training.trainer import quiet
from ecrl.training.warmup import cached_base


@dataclass(frozen=True)
class Settings:
    """Settings of ``ecrl export``.

    Attributes:
        checkpoint: ``last``, ``best`` or an iteration.
    """

    checkpoint: str = field(default="last", metadata={LIMIT: WhichCheckpoint()})


COMMAND = Command(
    name="export",
    help="""ecrl export: the policy of one of a run's checkpoints, whole, in HF format

  ecrl export RUN OUTPUT               RUN: a run directory; OUTPUT: a new folder

  checkpoint=WHICH   last, best or an iteration                                  (default: last)

The weights have the type that the model came with.
""",
    settings=Settings,
    words=True,
)


def main(arguments: Arguments[Settings]) -> int:
    """Export, and say where."""
    words = arguments.words
    if len(words) != 2:
        raise UsageError(f"`ecrl export RUN OUTPUT` takes two folders, got {len(words)}.")
    run_dir, output = map(Path, words)
    if output.exists():
        raise UsageError(f"{str(output)!r} exists already and nothing is overwritten; choose another.")
    export(run_dir, output, arguments.settings.checkpoint)
    print(f"Policy: {output}")
    return 0


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
