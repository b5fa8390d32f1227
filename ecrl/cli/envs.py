"""``ecrl envs``: what can be trained on."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from ecrl.cli.options import parse
from ecrl.compose import options as group_options
from ecrl.errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """List the registered environments, with a line each."""
    import ecrl.envs  # noqa: F401  (registers them)

    options = parse(arguments)
    if options.overrides:
        raise UsageError(f"`ecrl envs` takes no arguments, got {' '.join(options.overrides)}.")
    table = Table("id", "what")
    for env_id in sorted(i for i in gym.registry if i.startswith("ecrl/")):
        doc = gym.spec(env_id).entry_point
        cls = gym.envs.registration.load_env_creator(doc) if isinstance(doc, str) else doc
        table.add_row(env_id, (cls.__doc__ or "").strip().splitlines()[0])
    Console(highlight=False).print(table)
    print(f"Short names for env=…: {', '.join(group_options('env', options.config_dir))}")
    print("Your own: env=mypkg.mod:me/MyTask-v0")
    return 0
