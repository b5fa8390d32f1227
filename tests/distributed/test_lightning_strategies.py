"""How a process joins the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment

from ecrl.distributed.lightning_strategies import MeshStrategy


def test_no_device_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound device would make vLLM's own process groups wait for ranks that never join."""
    joined: dict[str, Any] = {}
    monkeypatch.setattr(dist, "is_initialized", lambda: False)  # an earlier run may have been a group of one
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: joined.update(settings))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    strategy: Any = MeshStrategy(2, 1, timeout=7.0)
    strategy.parallel_devices = [torch.device("cuda", 0)]
    strategy.accelerator = SimpleNamespace(setup_device=lambda device: None)
    strategy.cluster_environment = LightningEnvironment()
    strategy._setup_distributed()
    assert joined["timeout"].total_seconds() == 7.0
    assert joined.get("device_id") is None
