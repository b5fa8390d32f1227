"""The few options beside Hydra's overrides."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from ecrl.config.compose import build_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError, unknown_name
from ecrl.runs.os_errors import check_writable

_FLAGS = ("-m", "--multirun", "--cfg", "--config-dir")


@dataclass(frozen=True)
class Options:
    """Parsed arguments of a command.

    Attributes:
        overrides: Hydra overrides.
        config_dir: the user's own config groups.
        sweep: run every combination of comma-separated values.
        show: print the configuration and stop.
    """

    overrides: list[str]
    config_dir: Path | None = None
    sweep: bool = False
    show: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """Separate options from overrides.

    Raises:
        UsageError: an option that does not exist, or one without its value.
    """
    overrides: list[str] = []
    config_dir: Path | None = None
    sweep = show = False
    words = iter(arguments)
    for word in words:
        key, equals, value = word.partition("=")
        if word in ("-m", "--multirun"):
            sweep = True
        elif word == "--cfg":
            show = True
        elif key == "--config-dir":
            value = value if equals else next(words, "")
            if not value:
                raise UsageError("--config-dir needs a folder: --config-dir DIR.")
            config_dir = Path(value).expanduser()
        elif word.startswith("-"):
            raise unknown_name("option", key, _FLAGS)
        else:
            # No shell does it after `=`, and Hydra's grammar has no `~`.
            overrides.append(key + equals + os.path.expanduser(value))
    return Options(overrides, config_dir, sweep, show)


def as_yaml(config: Config) -> str:
    """The whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def output_config(arguments: Sequence[str]) -> Config | None:
    """Compose the configuration of a command that writes ``output`` and uses no strategy.

    Returns:
        The configuration; None where it was only to be shown.

    Raises:
        UsageError: bad input, or an ``output`` that exists or cannot be written.
    """
    options = parse(arguments)
    config = build_config([*options.overrides, "strategy=[]"], options.config_dir)
    if options.show:
        print(as_yaml(config))
        return None
    if config.output is not None:
        check_output(Path(config.output))
    return config


def check_output(output: Path) -> None:
    """Refuse now what could not be written after the work.

    Raises:
        UsageError: it exists, or its folder takes no files.
    """
    if os.path.exists(output):
        raise UsageError(f"output={str(output)!r} exists already and nothing is overwritten; choose another.")
    check_writable(output, "output")
