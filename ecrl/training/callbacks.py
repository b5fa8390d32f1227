"""The callbacks that a configuration asks for beside its strategies: its monitors, and its environment's."""

from __future__ import annotations

from typing import Any

import lightning as L

from ecrl.config.schema import Config
from ecrl.config.targets import build, require_target, resolve
from ecrl.envs.safe_calls import make, user_code
from ecrl.errors import UsageError


def build_callbacks(config: Config) -> list[L.Callback]:
    """Build the monitors of ``monitor=[…]`` in config order.

    Raises:
        UsageError: a node that is not a Lightning callback.
    """
    return [_monitor(name, node) for name, node in config.monitor.items()]


def _monitor(name: str, node: Any) -> L.Callback:
    require_target("monitor", name, node, "Lightning callback")
    try:
        monitor = build(node)
    except UsageError as error:
        raise UsageError(f"monitor.{name}: {error}") from None
    if not isinstance(monitor, L.Callback):
        raise UsageError(f"monitor.{name} built a {type(monitor).__name__}; it must be a lightning Callback.")
    return monitor


def environment_callbacks(config: Config) -> list[L.Callback]:
    """Build the callback that the training environment declares, if it declares one.

    Raises:
        UsageError: it cannot be imported.
        EcrlError: its constructor failed.
    """
    env: Any = make(config.env.id, "train", dict(config.env.kwargs)).unwrapped
    where = f"{config.env.id}.training_callback"
    with user_code(where):
        target = getattr(env, "training_callback", None)
        return [resolve(target, where)(env)] if target else []
