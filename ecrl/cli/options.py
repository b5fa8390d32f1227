"""The few options beside Hydra's overrides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from ecrl.config import Config
from ecrl.errors import UsageError, unknown_name

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
        if word in ("-m", "--multirun"):
            sweep = True
        elif word == "--cfg":
            show = True
        elif word.startswith("--config-dir"):
            value = word.partition("=")[2] or next(words, "")
            if not value:
                raise UsageError("--config-dir needs a folder: --config-dir DIR.")
            config_dir = Path(value)
        elif word.startswith("-"):
            raise unknown_name("option", word, _FLAGS)
        else:
            overrides.append(word)
    return Options(overrides, config_dir, sweep, show)


def as_yaml(config: Config) -> str:
    """The whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))
