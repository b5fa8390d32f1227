"""The configuration of a run that goes on from another one: resumed, with few changes, or forked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ecrl.config.compose import as_object, build_config
from ecrl.config.groups import GROUPS, presets
from ecrl.config.keys import all_keys, is_below, is_open, key_of, spelled_out, unknown_key
from ecrl.config.schema import Config
from ecrl.config.targets import resolve
from ecrl.errors import UsageError

#: May change in any run. Another change would make it another run than the one that the history is of.
_ALWAYS = (
    "iterations", "eval", "checkpoint", "log", "logger", "monitor", "update.max_tokens", "update.row_tokens",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.parallel",
    "trainer.tensor_parallel_size", "trainer.cpu_offload", "trainer.timeout",
)  # fmt: skip
#: Files may move. Two runs with different files are still not compared: their problems may differ.
_FILES = "env.kwargs.path", "env.kwargs.val_path"


#: Cannot change in a fork: they make the weights what they are.
_WEIGHTS = "model.path", "model.hidden_size", "model.layers", "model.heads", "model.lora", "warmup"
#: Groups whose presets spread over the whole configuration.
_WIDE = "experiment", "model_defaults"


def composed_config(overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    """Compose the configuration of a new run, or read that of the run to resume or to fork.

    Raises:
        UsageError: no such run, an unknown key or name, or a setting that cannot work.
    """
    if any(o.startswith("fork=") for o in overrides):
        return forked_config(overrides, config_dir)
    resumes = any(o.startswith("resume=") for o in overrides)
    if resumes and config_dir is not None:
        raise UsageError("--config-dir has no use with resume=…: the run's own config.yaml is read.")
    return resumed_config(overrides) if resumes else build_config(overrides, config_dir)


def changed_config(config: Config, overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    """Apply overrides of any key to a configuration, which stays as it is.

    Raises:
        UsageError: an unknown key or name, or a setting that cannot work.
    """
    for key in map(key_of, overrides):
        if key in ("resume", "fork"):
            raise UsageError(f"{key}=… reads the configuration of that run, so give no other beside it.")
    return _with_any(OmegaConf.structured(config), [spelled_out(o) for o in overrides], "Config", config_dir)


def forked_config(overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    """Read ``config.yaml`` of the run to fork and apply overrides of any key that leaves its weights fit.

    Args:
        overrides: ``fork=RUN`` and others, as a new run takes them.
        config_dir: a folder of the user's own config groups, searched as well.

    Raises:
        UsageError: no such run, or an override that cannot be applied.
    """
    changes = [spelled_out(o) for o in overrides if key_of(o) != "fork"]
    run_dir = Path([o for o in overrides if key_of(o) == "fork"][-1].partition("=")[2]).expanduser()
    config = _config_of(run_dir, "fork=")
    for key in map(key_of, changes):
        if key == "resume":
            raise UsageError("fork=RUN begins a new run, resume=RUN goes on with one; give one of them.")
        if key == "model" or is_below(key, _WEIGHTS):
            raise UsageError(f"{key!r} cannot be given with fork=RUN, whose weights the new run takes over.")
    config.fork, config.run_dir, config.output, config.checkpoint.load = str(run_dir), None, None, "last"
    return _with_any(config, changes, f"fork={str(run_dir)!r}", config_dir)


def resumed_config(overrides: Sequence[str]) -> Config:
    """Read ``config.yaml`` of the run to resume and apply the overrides that may change.

    Raises:
        UsageError: no such run, or an override that would change what the run is.
    """
    values = dict(spelled_out(o).partition("=")[::2] for o in overrides)
    run_dir = Path(values.pop("resume")).expanduser()
    config = _config_of(run_dir, "resume=")
    _check_keys(values, config)
    config.checkpoint.load = "last"  # what a fork began with
    changes = [f"{key}={value}" for key, value in values.items()]
    config = _changed(config, changes, f"resume={str(run_dir)!r}")
    config.resume = str(run_dir)
    return as_object(config)


def run_config(run_dir: Path, overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    """Read ``config.yaml`` of a run and apply any overrides, to evaluate what it trained.

    Args:
        run_dir: the run directory.
        overrides: as ``ecrl train`` takes them.
        config_dir: a folder of the user's own config groups.

    Raises:
        UsageError: no such run, an unknown key or name, or a setting that cannot work.
    """
    config = _config_of(run_dir)
    config.fork, config.checkpoint.load = None, "last"  # what it began with
    config.resume = str(run_dir)  # so that checkpoint=best has a run to choose from
    return _with_any(config, [spelled_out(o) for o in overrides], str(run_dir), config_dir)


def _with_any(config: Any, overrides: Sequence[str], whose: str, config_dir: Path | None) -> Config:
    """Apply overrides of any key, and check the result."""
    for key in map(key_of, overrides):
        if key in _WIDE:
            raise UsageError(f"{key}=… is for new runs; name the keys that shall differ from this run's.")
        if key not in all_keys() and not is_open(key):
            raise unknown_key(key)
    return as_object(_changed(config, overrides, whose, config_dir), config_dir)


def _config_of(run_dir: Path, before: str = "") -> Any:
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UsageError(f"{before}{str(run_dir)!r} is not a run directory: {path} is missing.")
    return saved_config(path)


def _changed(config: Any, overrides: Sequence[str], whose: str, config_dir: Path | None = None) -> Any:
    """Apply overrides as Hydra does: groups' presets in place of their nodes, then single keys."""
    try:
        for override in sorted(overrides, key=lambda o: key_of(o) not in GROUPS):
            key, _, value = override.partition("=")
            if key in ("eval", "trainer"):  # their presets name a few keys, and leave the rest as it is
                config = OmegaConf.merge(config, presets({key: (key, value)}, config_dir))
            elif key in GROUPS:
                chosen = OmegaConf.structured(build_config([override], config_dir))
                OmegaConf.update(config, key, OmegaConf.select(chosen, key), merge=False)
            else:
                config = OmegaConf.merge(config, OmegaConf.from_dotlist([override]))
    except OmegaConfBaseException as error:
        raise UsageError(f"{whose}: {str(error).splitlines()[0]}") from None
    return config


def saved_config(path: Path) -> Any:
    """Read a run's ``config.yaml``; keys that are younger than the run get their defaults.

    Returns:
        OmegaConf's node of the whole configuration.

    Raises:
        UsageError: it cannot be read, or holds no configuration.
    """
    try:
        saved = OmegaConf.load(path)
        if isinstance(saved, DictConfig) and saved:
            return OmegaConf.merge(OmegaConf.structured(Config), saved)
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    raise UsageError(f"{path} holds no configuration; put back the one that the run began with.")


def free_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys that may change on resume, with all keys below them.

    Args:
        config: the whole configuration. The classes of its engine and its strategies declare their own
            knobs in ``resumable``.
    """
    nodes = {"engine": config["engine"]}
    nodes |= {f"strategy.{name}": node for name, node in config["strategy"].items()}
    return (*_ALWAYS, *(f"{where}.{knob}" for where, node in nodes.items() for knob in _resumable(node)))


def _resumable(node: Any) -> list[str]:
    if not isinstance(node, Mapping) or "_target_" not in node:
        return []
    try:
        return sorted(getattr(resolve(str(node["_target_"]), ""), "resumable", ()))
    except UsageError:  # a class that cannot be imported here; `as_object` refuses to resume with it
        return []


def _check_keys(keys: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    free = (*free_keys(config), *_FILES)
    for key in keys:
        if key not in all_keys() and not is_open(key):
            raise unknown_key(key)
        if key != "trainer" and not is_below(key, free):  # its presets name keys that may change
            raise UsageError(
                f"{key!r} cannot change on resume: the run would no longer be the one that began. "
                f"What may change: {', '.join(free)}."
            )
