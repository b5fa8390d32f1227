"""``ecrl warmup``: a supervised warm start on worked solutions, without a run."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.cli.output import output_config
from ecrl.errors import UsageError

COMMAND = Command(
    name="warmup",
    help="""ecrl warmup: a supervised warm start on an environment's worked solutions

  ecrl warmup env=countdown output=DIR
  ecrl warmup [overrides…]             without output=DIR the model goes to the cache, for `ecrl train`

Overrides are Hydra's, of the configuration of `ecrl train`; those of the warm start are warmup.KEY.
""",
    settings=NoSettings,
    overrides=True,
    flags=("--cfg", "--config-dir"),
)


def main(arguments: Arguments[NoSettings]) -> int:
    """Train a model on worked solutions and write it to ``output``, or to the cache."""
    config = output_config(arguments)
    if config is None:
        return 0
    if config.output is None and config.model.path is not None:
        raise UsageError("A warm start of your own model needs output=DIR to write to.")
    from ecrl.training.trainer import quiet  # not before the configuration holds: it takes seconds
    from ecrl.training.warmup import cached_base, make_base

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
