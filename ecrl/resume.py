"""The configuration of a run that goes on: the one it began with, but for a few keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecrl.compose import as_object
from ecrl.config import Config
from ecrl.errors import UsageError

#: Anything else would make it another run than the one whose history it continues.
FREE = ("iterations", "eval", "trainer", "checkpoint", "log", "update.max_tokens", "update.row_tokens")


def resumed_config(overrides: Sequence[str]) -> Config:
    """Read ``config.yaml`` of the run to resume and apply the overrides that may change.

    Raises:
        UsageError: no such run, or an override that would change what the run is.
    """
    values = dict(o.partition("=")[::2] for o in overrides)
    run_dir = Path(values.pop("resume"))
    path = run_dir / "config.yaml"
    if not path.exists():
        raise UsageError(f"resume={str(run_dir)!r} is not a run directory: {path} is missing.")
    for key in values:
        if not any(key == free or key.startswith(f"{free}.") for free in FREE):
            raise UsageError(
                f"{key!r} cannot change on resume: the run would no longer be the one that began. "
                f"What may change: {', '.join(FREE)}."
            )
    try:
        config = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path))
        config = OmegaConf.merge(config, OmegaConf.from_dotlist([f"{k}={v}" for k, v in values.items()]))
    except OmegaConfBaseException as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}") from None
    config.resume = str(run_dir)
    return as_object(config)
