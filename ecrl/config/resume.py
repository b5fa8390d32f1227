"""The configuration of a run that goes on: the one it began with, but for a few keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ecrl.config.compose import all_keys, as_object, is_open, unknown_key
from ecrl.config.schema import Config
from ecrl.errors import UsageError

#: Anything else would make it another run than the one whose history it continues.
FREE = (
    "iterations", "eval", "checkpoint", "log", "update.max_tokens", "update.row_tokens",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.parallel",
    "trainer.tensor_parallel_size", "trainer.cpu_offload", "trainer.timeout",
    # Where an engine is and how much it takes at once: the same keys draw the same completions.
    "engine.urls", "engine.timeout", "engine.max_in_flight", "engine.batch_size",
    "engine.gpu_memory_utilization", "engine.kv_cache_gib", "engine.probe_tolerance",
)  # fmt: skip
#: Files move, too; but of two runs with different ones nobody knows that they hold the same problems.
_FILES = "env.kwargs.path", "env.kwargs.val_path"


def resumed_config(overrides: Sequence[str]) -> Config:
    """Read ``config.yaml`` of the run to resume and apply the overrides that may change.

    Raises:
        UsageError: no such run, or an override that would change what the run is.
    """
    values = dict(o.partition("=")[::2] for o in overrides)
    run_dir = Path(values.pop("resume")).expanduser()
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UsageError(f"resume={str(run_dir)!r} is not a run directory: {path} is missing.")
    for key in values:
        if key not in all_keys() and not is_open(key):
            raise unknown_key(key)
        if not any(key == free or key.startswith(f"{free}.") for free in (*FREE, *_FILES)):
            raise UsageError(
                f"{key!r} cannot change on resume: the run would no longer be the one that began. "
                f"What may change: {', '.join((*FREE, *_FILES))}."
            )
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), _load(path))
        config = OmegaConf.merge(config, OmegaConf.from_dotlist([f"{k}={v}" for k, v in values.items()]))
    except OmegaConfBaseException as error:
        raise UsageError(f"resume={str(run_dir)!r}: {str(error).splitlines()[0]}") from None
    config.resume = str(run_dir)
    return as_object(config)


def _load(path: Path) -> Any:
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(config, DictConfig) or not config:
        raise UsageError(f"{path} holds no configuration; put back the one that the run began with.")
    return config
