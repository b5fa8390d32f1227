"""``ecrl warmup``: a supervised warm start on worked solutions, on its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from ecrl.cli.options import output_config
from ecrl.errors import UsageError
from ecrl.training.run import quiet
from ecrl.training.warmup import cached_base, make_base


def main(arguments: Sequence[str]) -> int:
    """Warm a model up and write it to ``output``, or to the cache."""
    config = output_config(arguments)
    if config is None:
        return 0
    if config.output is None and config.model.path is not None:
        raise UsageError("A warm start of your own model needs output=DIR to write to.")
    quiet()
    with Progress() as bar:
        task = bar.add_task("warm start", total=config.warmup.steps)

        def advance(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"warm start, loss {loss:.3f}")

        if config.output is not None:
            target = Path(config.output)
            make_base(config, target, advance)
        else:
            target = cached_base(config, advance)
    print(f"Base model: {target}")
    return 0
