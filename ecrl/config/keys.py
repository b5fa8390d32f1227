"""Dotted keys of the configuration: which there are, and how two of them are related."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from omegaconf import BooleanNode, DictConfig, OmegaConf

from ecrl.config.groups import OPEN_NODES
from ecrl.config.schema import Config
from ecrl.errors import UsageError, unknown_name


def all_keys() -> list[str]:
    """Return every key of the schema."""
    keys: list[str] = []

    def walk(node: Mapping[str, Any], prefix: str) -> None:
        for key in node:
            keys.append(f"{prefix}{key}")
            child = OmegaConf.select(node, key)  # type: ignore[arg-type]
            if isinstance(child, DictConfig):
                walk(cast(Mapping[str, Any], child), f"{prefix}{key}.")

    walk(cast(Mapping[str, Any], OmegaConf.structured(Config)), "")
    return keys


def is_open(key: str) -> bool:
    """Whether a constructor's signature, not the schema, says what the key may be."""
    nodes = (*OPEN_NODES, r"env\.kwargs", r"model\.chat\.kwargs", r"eval\.sets")
    return key == "eval.sets" or re.match(rf"({'|'.join(nodes)})\.", key) is not None


def takes_boolean(key: str) -> bool:
    """Whether the schema holds true or false under a key."""
    node = OmegaConf.structured(Config)
    for name in key.split("."):
        node = node._get_node(name, validate_access=False) if isinstance(node, DictConfig) else None
    return isinstance(node, BooleanNode)


def is_below(key: str, roots: Iterable[str]) -> bool:
    """Whether the key is one of the roots or lies below one."""
    return any(key == root or key.startswith(f"{root}.") for root in roots)


def key_of(override: str) -> str:
    """Return the key that an override sets."""
    return override.partition("=")[0]


def spelled_out(override: str) -> str:
    """Return an override in full: ``checkpoint=best`` is short for ``checkpoint.load=best``."""
    key, _, value = override.partition("=")
    return f"checkpoint.load={value}" if key == "checkpoint" and not value.startswith("{") else override


def unknown_key(key: str) -> UsageError:
    """Return the error for a key that the schema lacks; it lists the keys beside it, or else all."""
    node = key.rpartition(".")[0]
    siblings = [known for known in all_keys() if node and known.rpartition(".")[0] == node]
    return unknown_name("key", key, siblings or all_keys())
