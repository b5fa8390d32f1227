"""From command-line overrides to a checked configuration.

Hydra composes; on top of it: an environment's id stands for its group, keys of a strategy need no
``+``, and a wrong key or name gets one line that names the nearest right one.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ecrl.config.schema import Config
from ecrl.config.validate import check_values
from ecrl.errors import UsageError, unknown_name

GROUPS = ("model", "env", "engine", "objective", "strategy", "trainer", "experiment")
_OPEN_NODES = ("strategy", "objective", "engine")
_RESERVED = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
#: What a constructor's annotation means for a value from YAML, and what to call it.
_SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "None": ((type(None),), "null"),
}


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
            if config.strategy:
                _refuse_twins(prepared + search, search)
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        # YAMLError: a file of the user's own; ValueError, TypeError: how Hydra refuses `env=null`.
        raise _explain(error, config_dir) from None
    return as_object(config, config_dir)


def load_config(*overrides: str, config_dir: Path | str | None = None) -> Config:
    """Compose and check the configuration of a run, from the overrides that ``ecrl train`` takes.

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
    """Turn OmegaConf's node into plain dataclasses, completed and checked, with ``~`` spelt out."""
    for name in _OPEN_NODES:
        if config[name] is None:
            raise UsageError(f"{name} is empty; choose one of: {', '.join(options(name, config_dir))}.")
        _complete(config[name], name)
    result = cast(Config, OmegaConf.to_object(config))
    for node, key in ((result, "run_dir"), (result, "resume"), (result, "output"), (result.model, "path")):
        if path := getattr(node, key):
            setattr(node, key, os.path.expanduser(path))
    check_values(result)
    return result


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Expand ``seed=1,2 strategy=[a],[b]`` to one list of overrides for each combination."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise _unreadable(error) from None
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    return [list(combination) for combination in product(*choices)]


def build(node: Any, **kwargs: Any) -> Any:
    """Instantiate a ``_target_`` node."""
    try:
        return instantiate(node, _convert_="all", **kwargs)
    except HydraException as error:
        # Hydra wraps what a constructor raises; our own messages are meant for the user as they are.
        if isinstance(error.__cause__, UsageError):
            raise error.__cause__ from None
        raise UsageError(f"{_first_line(error)} {_last_cause(error)}") from None


def options(group: str, config_dir: Path | None = None) -> list[str]:
    """Names available in a config group."""
    folders = [Path(str(resources.files("ecrl.configs"))) / group]
    folders += [config_dir / group] if config_dir else []
    return sorted({p.stem for folder in folders if folder.is_dir() for p in folder.glob("*.yaml")})


def _prepare(override: str, config_dir: Path | None) -> str:
    """Allow ``env=<gymnasium id>``, and new keys inside ``_target_`` nodes without Hydra's ``+``."""
    key, sep, value = override.partition("=")
    if not sep:
        raise UsageError(f"{override!r} is not an override; write key=value, e.g. seed=1.")
    if key == "env" and value not in options("env", config_dir) and re.search(r"[:/]", value):
        # The tasks of reasoning-gym have one version, which need not be written.
        task = value.startswith("reasoning_gym/") and not re.search(r"-v\d+$", value)
        return f"env.id='{value}-v0'" if task else f"env.id='{value}'"
    if key in GROUPS:
        _check_choice(override, config_dir)
    return f"++{override}" if is_open(key) else override


def is_open(key: str) -> bool:
    """Whether the key lies where a constructor's signature, not the schema, says what there is."""
    return re.match(rf"({'|'.join(_OPEN_NODES)}|env\.kwargs)\.", key) is not None


def _check_choice(override: str, config_dir: Path | None) -> None:
    """Refuse a group's value that is not a name (``strategy``: or a list of names)."""
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException as error:
        raise UsageError(f"{override!r}: {_first_line(error)}") from None
    key = override.partition("=")[0]
    stacks = key == "strategy"
    names = value if stacks and isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        form = f"{key}=[NAME,…]" if stacks else f"{key}=NAME"
        known = ", ".join(options(key, config_dir))
        raise UsageError(f"{override!r} names nothing; write {form}, one of: {known}.")


def _refuse_twins(overrides: list[str], search: list[str]) -> None:
    """Refuse two presets that fill the same key of ``strategy``: they would merge into one."""
    defaults = GlobalHydra.instance().config_loader().compute_defaults_list("config", overrides, RunMode.RUN)
    presets = [str(d.config_path) for d in defaults.defaults if str(d.config_path).startswith("strategy/")]
    owner: dict[str, str] = {}
    for preset in presets if len(presets) > 1 else []:
        name = preset.removeprefix("strategy/")
        alone = compose("config", overrides=[f"strategy=[{name}]", *search])
        for key in map(str, alone.strategy):
            if key in owner:
                raise UsageError(
                    f"strategy=[…]: {owner[key]} and {name} both fill strategy.{key}, so one of them would "
                    "be lost; drop one, or copy its YAML and give the copy a key of its own."
                )
            owner[key] = name


def _complete(node: Any, where: str) -> None:
    """Fill every ``_target_`` node below with its constructor's defaults; refuse keys it does not take."""
    if not isinstance(node, DictConfig):
        return
    OmegaConf.set_struct(node, False)
    for key in list(node):
        _complete(node[key], f"{where}.{key}")
    if "_target_" not in node:
        return
    target = resolve(str(node["_target_"]), where)
    if not inspect.isfunction(target) and not (inspect.isclass(target) and target.__module__ != "builtins"):
        raise UsageError(f"{where}._target_={node['_target_']!r} is neither a class nor a function to build.")
    parameters = inspect.signature(target).parameters
    for key in map(str, node):
        if key not in parameters and key not in _RESERVED:
            known = [
                p for p in parameters if p not in ("tokens", "rewards", "group_ids", "model", "process_group")
            ]
            raise unknown_name(f"key in {where}", key, known)
        if key in parameters:
            _check_type(f"{where}.{key}", node[key], parameters[key].annotation)
    for name, parameter in parameters.items():
        default = parameter.default
        if name not in node and isinstance(default, (bool, int, float, str, type(None))):
            node[name] = default


def _check_type(where: str, value: Any, annotation: Any) -> None:
    """Refuse a value that its annotation does not allow; only scalars, ``T`` or ``T | None``, are judged."""
    # A string under `from __future__ import annotations`, which strategies use.
    names = (annotation.__name__ if isinstance(annotation, type) else str(annotation)).split(" | ")
    if not all(name in _SCALARS for name in names):
        return
    fits = any(isinstance(value, kind) for name in names for kind in _SCALARS[name][0])
    if not fits or (isinstance(value, bool) and "bool" not in names):
        wanted = " or ".join(_SCALARS[name][1] for name in names)
        raise UsageError(f"{where} must be {wanted}, got {value!r}.")


def resolve(path: str, where: str) -> Any:
    """Import what a ``_target_`` names; ``where`` it stands goes into the error."""
    try:
        # Hydra also logs what it raises.
        logging.getLogger("hydra").setLevel(logging.CRITICAL)
        return get_object(path)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"{where}._target_={path!r} cannot be imported: {_last_cause(error)}") from None


def _explain(error: Exception, config_dir: Path | None) -> UsageError:
    """Turn Hydra's message into one line."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    text = str(error)
    missing = re.search(r"Could not (?:find|load) '(\w+)/([^']+)'", text)
    if missing and missing[1] in GROUPS:
        return unknown_name(missing[1], missing[2], options(missing[1], config_dir))
    group = re.search(r"Could not override '(\w+)'", text) or re.search(r"Key '(\w+)' (?:is )?not in", text)
    full = re.search(r"full_key: ([\w.]+)", text) or re.search(r"Could not override '([\w.]+)'", text)
    if full and ("not in" in text or "Could not override" in text):
        return unknown_key(full[1])
    if group:
        return unknown_key(group[1])
    cause = f": {_first_line(error.__cause__)}" if isinstance(error.__cause__, Exception) else ""
    return UsageError(_first_line(error) + cause)


def _unreadable(error: OverrideParseException) -> UsageError:
    """Show how to quote a value that Hydra's grammar cannot read."""
    key, _, value = error.override.lstrip("+").partition("=")
    listed = value.startswith("[") and value.endswith("]")
    parts = value[1:-1].split(",") if listed else [value]
    quoted = ",".join("'" + part.replace("'", r"\'") + "'" for part in parts)
    shown = f"[{quoted}]" if listed else quoted
    return UsageError(
        f'{key}={value} cannot be read. Quote the value, and all of it for the shell: "{key}={shown}"'
    )


def unknown_key(key: str) -> UsageError:
    """Return the error for a key that the schema lacks; below a node of its own it lists the node's keys."""
    node = key.rpartition(".")[0]
    siblings = [known for known in all_keys() if node and known.rpartition(".")[0] == node]
    return unknown_name("key", key, siblings or all_keys())


def all_keys() -> list[str]:
    """Every key of the schema, dotted."""
    keys: list[str] = []

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key in node:
            keys.append(f"{prefix}{key}")
            child = OmegaConf.select(node, key)  # type: ignore[arg-type]
            if isinstance(child, DictConfig):
                walk(cast(Mapping[str, Any], child), f"{prefix}{key}.")

    walk(cast(Mapping[str, Any], OmegaConf.structured(Config)), "")
    return keys


def _last_cause(error: BaseException) -> str:
    """What went wrong at the bottom, e.g. the import that failed inside the named module."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
