"""``ecrl strategies``: the names that ``strategy=[…]`` takes."""

from __future__ import annotations

import inspect
from importlib import resources
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.groups import options as group_options
from ecrl.config.targets import resolve

COMMAND = Command(
    name="strategies",
    help="""ecrl strategies: list the entropy-control strategies with their knobs and defaults

  ecrl strategies
  ecrl train strategy=[clip_cov,clip_higher] strategy.clip_cov.fraction=0.01
""",
    settings=NoSettings,
    flags=("--config-dir",),
)


def main(arguments: Arguments[NoSettings]) -> int:
    """List the strategies with their knobs and defaults."""
    folders = [Path(str(resources.files("ecrl.configs"))), *filter(None, [arguments.config_dir])]
    table = Table("name", "what", "knobs and defaults", show_lines=True)
    for name in group_options("strategy", arguments.config_dir):
        path = next(p for f in reversed(folders) if (p := f / "strategy" / f"{name}.yaml").exists())
        for node in OmegaConf.load(path).values():
            cls = resolve(node["_target_"], str(path))
            knobs = [
                f"{p.name}={node.get(p.name, p.default)}" for p in inspect.signature(cls).parameters.values()
            ]
            table.add_row(name, (cls.__doc__ or "").strip().splitlines()[0], "\n".join(knobs))
    Console(highlight=False).print(table)
    return 0
