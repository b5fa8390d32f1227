"""Runs to report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ecrl.config.compose import build_config
from ecrl.sweep.definition import Sweep
from ecrl.training.run import train
from tests.support.reports import make_run, rows
from tests.support.runs import silent
from tests.support.tiny import TINY


@pytest.fixture(scope="session")
def written_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms, seeds 1 to 3; the second is 0.05 better on average."""
    folder = tmp_path_factory.mktemp("written") / "runs"
    for seed, gain in ((1, 0.04), (2, 0.05), (3, 0.06)):
        make_run(folder / f"plain-{seed}", f"seed={seed}", metrics=rows(seed))
        make_run(folder / f"better-{seed}", f"seed={seed}", "strategy=[clip_cov]", metrics=rows(seed, gain))
    return folder


@pytest.fixture
def runs(written_runs: Path, tmp_path: Path) -> Path:
    """A copy of the two arms that a test may change."""
    return shutil.copytree(written_runs, tmp_path / "runs")


@pytest.fixture(scope="session")
def real_sweep(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms × two seeds of real runs, in a sweep's folder."""
    folder = tmp_path_factory.mktemp("sweep")
    common = [*(o for o in TINY if not o.startswith(("strategy", "eval"))), f"model.path={tiny_model}"]
    common += ["iterations=12", "eval.every=2", "eval.k=4", "eval.problems=8", "update.lr=3e-3"]
    common += ["log.rollout_tokens=true"]
    arms = {"grpo": ["strategy=[]"], "on_policy": ["strategy=[]", "update.minibatches=1"]}
    sweep = Sweep(arms, [1, 2], common)
    sweep.save(folder)
    for cell in sweep.cells(folder):
        train(build_config([*cell.overrides, f"run_dir={cell.run_dir}"]), silent)
    return folder
