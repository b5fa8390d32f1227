"""Composes a checked configuration from command-line overrides.

Hydra composes. On top of it, an environment's id may stand for its group, keys of a strategy need no
``+``, and a wrong key or name gets one line that names the nearest right one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ecrl.config.eval_sets import env_id, resolve_environments
from ecrl.config.explain import explain, first_line, unreadable
from ecrl.config.groups import GROUPS, LISTED, OPEN_NODES, options
from ecrl.config.keys import is_below, is_open, key_of, spelled_out, takes_boolean
from ecrl.config.limits import check_limits
from ecrl.config.schema import SMALL_MODEL, Config
from ecrl.config.targets import complete
from ecrl.config.validate import check_values
from ecrl.errors import UsageError

_SETS = "eval.sets"


def build_config(overrides: Sequence[str], config_dir: Path | None = None) -> Config:
    """Compose and check the configuration of a run.

    Args:
        overrides: Hydra overrides, e.g. ``strategy=[clip_cov]``, ``update.lr=1e-5``.
        config_dir: a folder of the user's own config groups, searched as well.

    Returns:
        The configuration as plain dataclasses; ``_target_`` nodes are plain dictionaries.

    Raises:
        UsageError: an unknown key or name, a value of the wrong type, a setting that cannot work.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise UsageError(f"--config-dir {str(config_dir)!r} is not a folder.")
    # An id and a name of `env` turn into different keys below, so only here can the last one win.
    superseded = [o for o in overrides if o.startswith("env=")][:-1]
    prepared = [_prepare(o, config_dir) for o in overrides if o not in superseded]
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir else []
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("ecrl.configs", version_base="1.3"):
            config = compose("config", overrides=prepared + search)
            if not _keeps_defaults(config.model.path, overrides):
                prepared = ["model_defaults=hf", *prepared]
                config = compose("config", overrides=prepared + search)
            for group in LISTED:
                if config[group]:
                    _refuse_twins(group, prepared + search, search)
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        # YAMLError: a file of the user's own; ValueError, TypeError: how Hydra refuses `env=null`.
        raise explain(error, config_dir) from None
    return as_object(config, config_dir)


def load_config(*overrides: str, config_dir: Path | str | None = None) -> Config:
    """Compose and check the configuration of a run, from the overrides that ``ecrl train`` takes.

    Examples:
        >>> from ecrl import load_config
        >>> config = load_config("env=arithmetic", "update.lr=1e-5", "strategy=[clip_cov,clip_higher]")
        >>> config.env.id, config.update.lr, list(config.strategy)
        ('ecrl/Arithmetic-v0', 1e-05, ['clip_cov', 'clip_higher'])

    Args:
        overrides: e.g. ``strategy=[clip_cov]``, ``update.lr=1e-5``.
        config_dir: a folder of your own config groups, searched as well.

    Raises:
        UsageError: an unknown key or name, a value of the wrong type, a setting that cannot work.
    """
    return build_config(overrides, None if config_dir is None else Path(config_dir))


def as_object(config: Any, config_dir: Path | None = None) -> Config:
    """Turn OmegaConf's node into plain dataclasses: targets completed, values checked, ``~`` expanded.

    Raises:
        UsageError: a node is empty, or a setting cannot work.
    """
    check_limits(OmegaConf.to_object(config))  # before the parts are imported, which takes seconds
    for name in OPEN_NODES:
        node = OmegaConf.select(config, name)
        if node is None:
            raise UsageError(f"{name} is empty; choose one of: {', '.join(options(name, config_dir))}.")
        complete(node, name)
    resolve_environments(config.eval.sets, config_dir)
    result = cast(Config, OmegaConf.to_object(config))
    for node, key in (
        (result, "run_dir"),
        (result, "resume"),
        (result, "fork"),
        (result, "output"),
        (result.model, "path"),
        (result.model.chat, "template"),
    ):
        if path := getattr(node, key):
            setattr(node, key, os.path.expanduser(path))
    check_values(result)
    return result


def as_yaml(config: Config) -> str:
    """Return the whole configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Expand ``seed=1,2 strategy=[a],[b]`` to one list of overrides for each combination.

    Raises:
        UsageError: an override cannot be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise unreadable(error) from None
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    return [list(combination) for combination in product(*choices)]


def _prepare(override: str, config_dir: Path | None) -> str:
    """Allow ``env=<gymnasium id>``, and new keys inside ``_target_`` nodes without Hydra's ``+``."""
    key, sep, value = spelled_out(override).partition("=")
    if not sep or not key:
        raise UsageError(f"{override!r} is not an override; write key=value, e.g. seed=1.")
    # OmegaConf takes any whole number for true.
    if re.fullmatch("[+-]?[0-9]+", value) and takes_boolean(key):
        raise UsageError(f"{key} takes true or false; got {value}.")
    if key == "env" and (found := env_id(value, config_dir)):
        return f"env.id='{found}'"
    if key in GROUPS:
        _check_choice(override, config_dir)
        return f"{key.replace('.', '/')}={value}"  # Hydra's name of a group inside a node
    return f"++{_nested(key, value)}" if is_open(key) else f"{key}={value}"


def _nested(key: str, value: str) -> str:
    """Write a key of a validation set as a dictionary, which Hydra merges with the others and may add."""
    names = key.removeprefix(_SETS).split(".")[1:] if is_below(key, [_SETS]) else []
    for name in reversed(names):
        value = f"{{{name}: {value}}}"
    return f"{_SETS if names else key}={value}"


def _check_choice(override: str, config_dir: Path | None) -> None:
    """Refuse a group's value that is not a name; some groups also take a list of names."""
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException as error:
        raise UsageError(f"{override!r}: {first_line(error)}") from None
    key = key_of(override)
    names = value if key in LISTED and isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        form = f"{key}=[NAME,…]" if key in LISTED else f"{key}=NAME"
        known = ", ".join(options(key, config_dir))
        raise UsageError(f"{override!r} names nothing; write {form}, one of: {known}.")


def _keeps_defaults(path: str | None, overrides: Sequence[str]) -> bool:
    """Whether ``model_defaults`` stays: for our small model, also from a folder, or where it was chosen."""
    if path is None or "model_defaults" in map(key_of, overrides):
        return True
    try:
        numbers = json.loads((Path(path).expanduser() / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(numbers, dict) and SMALL_MODEL in numbers


def _refuse_twins(group: str, overrides: list[str], search: list[str]) -> None:
    """Refuse two presets that fill the same key of a listed group: Hydra would merge them into one."""
    defaults = GlobalHydra.instance().config_loader().compute_defaults_list("config", overrides, RunMode.RUN)
    inside = f"{group}/"
    # A preset may list others, as monitor/standard does; what it lists is its own.
    presets = [
        str(d.config_path)
        for d in defaults.defaults
        if str(d.config_path).startswith(inside) and not str(d.parent).startswith(inside)
    ]
    owner: dict[str, str] = {}
    for preset in presets if len(presets) > 1 else []:
        name = preset.removeprefix(inside)
        alone = compose("config", overrides=[f"{group}=[{name}]", *search])
        for key in map(str, alone[group]):
            if owner.get(key) == name:
                raise UsageError(f"{group}=[…] names {name} twice; drop one.")
            if key in owner:
                raise UsageError(
                    f"{group}=[…]: {owner[key]} and {name} both fill {group}.{key}, so one of them would "
                    "be lost; drop one, or copy its YAML and give the copy a key of its own."
                )
            owner[key] = name
