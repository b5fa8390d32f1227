"""Runs, and what two of them must have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecrl.config.compose import build_config
from ecrl.runs.metrics_file import is_wall_time, read_metrics
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors


def silent(line: str) -> None:
    """Say nothing."""


def run(base: list[str], run_dir: Path, *overrides: str) -> Path:
    config = build_config([*base, f"run_dir={run_dir}", *overrides])
    return train(config, silent).run_dir


def history(run_dir: Path) -> list[dict[str, Any]]:
    rows = read_metrics(run_dir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not is_wall_time(k)} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Bit for bit: weights, optimizer, logged history."""
    assert history(one) == history(other)
    left, right = checkpoint_tensors(one), checkpoint_tensors(other)
    assert left.keys() == right.keys()
    assert any(name.startswith("model.") for name in left) and any("exp_avg" in name for name in left)
    assert all(torch.equal(left[name], right[name]) for name in left)


def events(run_dir: Path) -> EventAccumulator:
    """TensorBoard's events of a run."""
    board = EventAccumulator(
        str(run_dir / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0, "images": 0}
    )
    return board.Reload()
