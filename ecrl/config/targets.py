"""Nodes with a ``_target_``: fills them from the constructor's signature, checks them, builds them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from ecrl.config.explain import first_line, last_cause
from ecrl.config.groups import filled_key
from ecrl.errors import UsageError, unknown_name

_RESERVED = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
#: Arguments that the code passes, so that no error offers them to the user.
_PASSED = (
    "tokens",
    "episodes",
    "rewards",
    "group_ids",
    "model",
    "process_group",
    "params",
    "run_dir",
    "done",
)
#: Arguments of a node that have a key of their own.
_SET_BY = {"update.optimizer": {"lr": "update.lr", "weight_decay": "update.weight_decay"}}
_PLAIN = (bool, int, float, str, type(None))
#: By the word in a constructor's annotation: the types that a value from YAML may have, and their name.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "Sequence[str]": ((list, tuple, ListConfig), "a list of texts"),
    "None": ((type(None),), "null"),
}


def build(node: Any, **kwargs: Any) -> Any:
    """Instantiate a ``_target_`` node.

    Args:
        node: the node, with nodes in it built first.
        **kwargs: passed to the constructor as well.

    Raises:
        UsageError: the constructor refuses its arguments. A UsageError or ValueError that it raises keeps
            its message.
    """
    try:
        return instantiate(node, _convert_="all", **kwargs)
    except HydraException as error:
        # Hydra wraps what a constructor raises.
        cause = error.__cause__
        if isinstance(cause, UsageError):
            raise cause from None
        if isinstance(cause, ValueError) and str(cause).strip():
            raise UsageError(" ".join(str(cause).split())) from None
        raise UsageError(f"{first_line(error)} {last_cause(error)}") from None


def require_target(group: str, name: str, node: Any, kind: str) -> None:
    """Refuse a member of a listed group, such as ``strategy``, that names nothing to build.

    Args:
        group: the config group.
        name: the member's key in it.
        node: what stands there.
        kind: what its ``_target_`` should name, for the message.

    Raises:
        UsageError: the node has no ``_target_``.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        if (key := filled_key(group, name)) is not None:
            raise UsageError(
                f"{group}.{name} is no setting: the preset {name} fills {group}.{key}, so write "
                f"{group}.{key}.KEY=VALUE."
            )
        raise UsageError(
            f"{group}.{name} has no `_target_`, got {node!r}; is {name} in {group}=[…]? "
            f"One of your own needs a `_target_` that names a {kind}."
        )


def resolve(path: str, where: str) -> Any:
    """Import what a ``_target_`` names.

    Args:
        path: the dotted name.
        where: the node that it stands in, for messages.

    Raises:
        UsageError: it cannot be imported.
    """
    try:
        # Hydra also logs what it raises.
        logging.getLogger("hydra").setLevel(logging.CRITICAL)
        return get_object(path)
    except (ImportError, ValueError, AttributeError) as error:
        raise UsageError(f"{where}._target_={path!r} cannot be imported: {last_cause(error)}") from None


def complete(node: Any, where: str) -> None:
    """Fill every ``_target_`` node in a tree with its constructor's defaults.

    Args:
        node: OmegaConf's tree, changed in place.
        where: its dotted key, for messages.

    Raises:
        UsageError: a target that cannot be built, a key that it does not take, a value of the wrong type.
    """
    if not isinstance(node, DictConfig):
        return
    OmegaConf.set_struct(node, False)
    for key in list(node):
        complete(node[key], f"{where}.{key}")
    if "_target_" not in node:
        return
    target = resolve(str(node["_target_"]), where)
    if not inspect.isfunction(target) and not (inspect.isclass(target) and target.__module__ != "builtins"):
        raise UsageError(f"{where}._target_={node['_target_']!r} is neither a class nor a function to build.")
    parameters, set_by = inspect.signature(target).parameters, _SET_BY.get(where, {})
    for key in map(str, node):
        if key in set_by:
            raise UsageError(f"{where}.{key} is set by {set_by[key]}.")
        if key in parameters:
            _check_type(f"{where}.{key}", node[key], parameters[key].annotation)
        elif key not in _RESERVED:
            known = [p for p in parameters if p not in _PASSED and p not in set_by]
            raise unknown_name(f"key in {where}", key, known)
    for name, parameter in parameters.items():
        default = parameter.default
        plain = all(
            isinstance(part, _PLAIN) for part in (default if isinstance(default, tuple) else [default])
        )
        if name not in node and name not in set_by and plain:
            node[name] = default


def _check_type(where: str, value: Any, annotation: Any) -> None:
    """Refuse a value that its annotation does not allow; judges plain ones only, ``T`` or ``T | None``."""
    # A string under `from __future__ import annotations`, which strategies use.
    names = (annotation.__name__ if isinstance(annotation, type) else str(annotation)).split(" | ")
    if not all(name in _KINDS for name in names):
        return
    fits = any(isinstance(value, kind) for name in names for kind in _KINDS[name][0])
    if not fits or (isinstance(value, bool) and "bool" not in names):
        wanted = " or ".join(_KINDS[name][1] for name in names)
        raise UsageError(f"{where} must be {wanted}, got {value!r}.")
