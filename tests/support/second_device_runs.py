"""Whole runs on a second device; ``tests/training/test_second_device.py`` runs this by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.resume import resumed_config
from ecrl.training.module import PolicyModule
from ecrl.training.run import evaluate, train
from tests.support.conformance import ROWS, Row, node
from tests.support.runs import history, silent
from tests.support.second_device import NAME, register
from tests.support.tiny import TINY

DEVICE = register()
BRIEF = ["iterations=2", "eval.every=1", "eval.problems=2", "eval.k=1"]
PRIME = ["objective=prime", "objective.filters.min_accuracy=null", "objective.filters.max_accuracy=null"]
PARTS = {
    "adapters": ["model.lora.r=2"],
    "packed rows": ["update.max_tokens=64", "update.row_tokens=48"],
    "recomputation": ["model.activation_checkpointing=selective"],
    "rollout ahead": ["rollout.staleness=1", "strategy=[importance_correction]"],
    "many turns": ["env=tests.support.tasks:test/Echo-v0"],
    "auxiliary model": PRIME,
    "monitors": ["monitor=[standard,entropy_dynamics]", "log.samples_every=1"],
}
JOINT = ("adapters", "packed rows", "recomputation", "auxiliary model")
TOGETHER = [word for name in JOINT for word in PARTS[name]]


class Where(L.Callback):
    """Ends the run unless all that is trained lies on the second device."""

    def on_train_epoch_end(self, trainer: L.Trainer, module: PolicyModule) -> None:  # type: ignore[override]
        assert {p.device for p in module.parameters()} == {DEVICE}


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    where = f"monitor.where._target_={Where.__module__}.{Where.__name__}"
    return [*TINY, f"model.path={tiny_model}", *BRIEF, where]


def trained(base: list[str], run_dir: Path, *overrides: str, strategy: Row | None = None) -> None:
    """Train, validate and save."""
    config = build_config([*base, f"run_dir={run_dir}", *overrides])
    if strategy is not None:
        config.strategy = node(strategy, strategy.active)
    train(config, silent)
    check(run_dir, iterations=2)


def check(run_dir: Path, iterations: int) -> None:
    rows = history(run_dir)
    assert [row["iteration"] for row in rows] == list(range(iterations + 1))
    assert all(math.isfinite(row["policy/grad_norm"]) for row in rows[1:])


def test_it_is_the_run_of_the_cpu(base: list[str], tmp_path: Path) -> None:
    trained(base, tmp_path / "second", *TOGETHER)
    on_cpu = [word for word in base if "monitor.where" not in word]
    trained(on_cpu, tmp_path / "cpu", *TOGETHER, "trainer.accelerator=cpu")
    for one, other in zip(history(tmp_path / "second"), history(tmp_path / "cpu"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_parts_train_and_resume(part: str, base: list[str], tmp_path: Path) -> None:
    trained(base, tmp_path / "run", *PARTS[part])
    train(resumed_config([f"resume={tmp_path / 'run'}", "iterations=3"]), silent)
    check(tmp_path / "run", iterations=3)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_strategies_train(row: Row, base: list[str], tmp_path: Path) -> None:
    trained(base, tmp_path / "run", strategy=row)


@pytest.mark.slow
@pytest.mark.parametrize("objective", sorted(set(options("objective")) - {"prime"}))
def test_objectives_train(objective: str, base: list[str], tmp_path: Path) -> None:
    trained(base, tmp_path / "run", f"objective={objective}")


@pytest.mark.slow
def test_evaluation(base: list[str]) -> None:
    assert all(math.isfinite(value) for value in evaluate(build_config(base)).metrics.values())


def on_cpu() -> torch.Tensor:
    return torch.ones(2, 3)


def on_device() -> torch.Tensor:
    return torch.ones(2, 3, device=DEVICE)


MISTAKES: dict[str, Callable[[], torch.Tensor]] = {
    "sum": lambda: on_device() + on_cpu(),
    "product": lambda: on_device() @ on_cpu().T,
    "selection": lambda: on_device().index_select(0, torch.tensor([0])),
    "index": lambda: on_device()[torch.tensor([0])],
    "index of the CPU": lambda: on_cpu()[torch.tensor([0], device=DEVICE)],
    "mask": lambda: on_device().masked_fill(on_cpu() > 0, 0.0),
    "junction": lambda: torch.cat([on_device(), on_cpu()]),
    "module": lambda: torch.nn.Linear(3, 1).to(DEVICE)(on_cpu()),
    "generator": lambda: on_device().uniform_(generator=torch.Generator()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_lies_elsewhere_is_refused(mistake: str) -> None:
    with pytest.raises(RuntimeError, match=f"{NAME}|same device"):
        MISTAKES[mistake]()
