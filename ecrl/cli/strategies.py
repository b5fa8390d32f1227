"""``ecrl strategies``: what can be stacked with ``strategy=[…]``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from ecrl.cli.options import parse
from ecrl.config.compose import options as group_options
from ecrl.config.compose import resolve
from ecrl.errors import UsageError


def main(arguments: Sequence[str]) -> int:
    """List the strategies with their knobs and defaults."""
    options = parse(arguments)
    if options.overrides:
        raise UsageError(f"`ecrl strategies` takes no arguments, got {' '.join(options.overrides)}.")
    folders = [Path(str(resources.files("ecrl.configs"))), *filter(None, [options.config_dir])]
    table = Table("name", "what", "knobs and defaults", show_lines=True)
    for name in group_options("strategy", options.config_dir):
        path = next(p for f in reversed(folders) if (p := f / "strategy" / f"{name}.yaml").exists())
        for node in OmegaConf.load(path).values():
            cls = resolve(node["_target_"], str(path))
            knobs = [f"{p.name}={p.default}" for p in inspect.signature(cls).parameters.values()]
            table.add_row(name, (cls.__doc__ or "").strip().splitlines()[0], "\n".join(knobs))
    Console(highlight=False).print(table)
    return 0
