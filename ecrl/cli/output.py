"""The setting ``output``: what a command writes, checked before the work."""

from __future__ import annotations

import os
from pathlib import Path

from ecrl.cli.arguments import Arguments, NoSettings
from ecrl.config.compose import as_yaml, build_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.runs.os_errors import check_writable


def output_config(arguments: Arguments[NoSettings]) -> Config | None:
    """Compose the configuration of a command that writes ``output`` and uses no strategy.

    Returns:
        The configuration; None where it was only to be shown.

    Raises:
        UsageError: bad input, or an ``output`` that exists or cannot be written.
    """
    config = build_config([*arguments.overrides, "strategy=[]"], arguments.config_dir)
    if arguments.show:
        print(as_yaml(config))
        return None
    if config.output is not None:
        check_output(Path(config.output))
    return config


def check_output(output: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        UsageError: it exists, or its folder takes no files.
    """
    if os.path.exists(output):
        raise UsageError(f"output={str(output)!r} exists already and nothing is overwritten; choose another.")
    check_writable(output, "output")
