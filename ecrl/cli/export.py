"""``ecrl export RUN OUTPUT``: the policy of a run's last checkpoint, whole, in HF format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ecrl.checkpoint import find_checkpoint
from ecrl.cli.options import parse
from ecrl.errors import UsageError
from ecrl.model import load_tokenizer, save_policy
from ecrl.parallel.load import spread_policy
from ecrl.parallel.shard import Spread
from ecrl.parallel.strategies import load_trained
from ecrl.resume import resumed_config
from ecrl.run import quiet
from ecrl.warmup import cached_base


def main(arguments: Sequence[str]) -> int:
    """Put the shards together in this process's memory, however many processes wrote them."""
    words = parse(arguments).overrides
    if len(words) != 2:
        raise UsageError(f"`ecrl export RUN OUTPUT` takes two folders, got {len(words)}.")
    run_dir, output = map(Path, words)
    if output.exists():
        raise UsageError(f"{str(output)!r} exists already and nothing is overwritten; choose another.")
    quiet()
    config = resumed_config([f"resume={run_dir}"])
    checkpoint = find_checkpoint(run_dir)
    path = config.model.path or str(cached_base(config))
    tokenizer = load_tokenizer(path)
    cpu = torch.device("cpu")
    model = spread_policy(path, tokenizer, config.model, Spread(), cpu, config.seed)
    load_trained(model, checkpoint)
    save_policy(model, tokenizer, output)
    print(f"Policy: {output}")
    return 0
