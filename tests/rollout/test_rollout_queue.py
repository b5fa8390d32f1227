"""Rollouts drawn ahead of training: the same schedule however they are drawn, resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.rollout.rollout_queue import Rollout, RolloutQueue
from ecrl.training.run import train
from tests.support.engines import DisaggregatedEngine
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import TINY

AHEAD = ["strategy=[importance_correction]", "rollout.staleness=2", "iterations=5"]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", *AHEAD]


def test_iteration_i_trains_on_what_the_weights_of_iteration_i_minus_k_drew() -> None:
    drawn: list[tuple[int, int]] = []

    def draw(iteration: int, version: int, temperature: float, recorder: Any) -> Rollout:
        drawn.append((iteration, version))
        return Rollout(iteration, version, temperature, [], [])

    queue = RolloutQueue(draw, staleness=2, disaggregated=False)
    used = [queue.next(i, version=10 * i, temperature=1.0) for i in range(5)]
    assert [(r.iteration, r.version) for r in used] == [(0, 0), (1, 0), (2, 0), (3, 10), (4, 20)]
    assert drawn == [(0, 0), (1, 0), (2, 0), (3, 10), (4, 20), (5, 30), (6, 40)]


def test_in_a_thread_or_at_once_is_the_same_run(base: list[str], tmp_path: Path) -> None:
    at_once = run(base, tmp_path / "once")
    DisaggregatedEngine.threads.clear()
    apart = run(base, tmp_path / "apart", "engine._target_=tests.support.engines.DisaggregatedEngine")
    assert any(name.startswith("rollouts") for name in DisaggregatedEngine.threads)
    # The copy may round differently, but it draws the same tokens and sees the same rewards.
    assert_same_run(at_once, apart)


def test_resume_is_exact_with_rollouts_in_flight(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole")
    parts = run(base, tmp_path / "parts", "iterations=2")
    train(resumed_config([f"resume={parts}", "iterations=5"]), silent)
    assert_same_run(whole, parts)


def test_staleness_shows_as_mismatch_and_none_as_none(base: list[str], tmp_path: Path) -> None:
    stale = history(run(base, tmp_path / "stale", "update.lr=1e-2"))
    assert stale[0]["mismatch/max"] == 0.0 and stale[-1]["mismatch/max"] > 0.01
    assert stale[-1]["mismatch/kl"] > 0 and 0 < stale[-1]["strategy/importance_correction/fraction"] <= 1
    fresh = history(run(base, tmp_path / "fresh", "update.lr=1e-2", "rollout.staleness=0"))
    assert {row["mismatch/max"] for row in fresh} == {0.0}
    plain = history(run(base, tmp_path / "plain", "update.lr=1e-2", "rollout.staleness=0", "strategy=[]"))
    shared = [name for name in plain[-1] if not name.startswith("strategy/")]
    assert [[row[n] for n in shared] for row in plain] == [[row[n] for n in shared] for row in fresh]


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [1, 2])
def test_learning_holds(staleness: int, tiny_model: Path, tmp_path: Path) -> None:
    base = [*TINY, f"model.path={tiny_model}", "rollout.prompts=16", "rollout.group_size=8", "update.lr=3e-3"]
    correction = ["strategy=[importance_correction]", f"rollout.staleness={staleness}"]
    rows = history(run(base, tmp_path / "run", "iterations=40", *correction))
    assert rows[0]["rollout/reward"] < 0.15
    assert rows[-1]["rollout/reward"] > 0.9


def test_staleness_without_correction_is_warned_of(base: list[str], tmp_path: Path) -> None:
    lines: list[str] = []
    config = build_config([*base, f"run_dir={tmp_path / 'run'}", "strategy=[]", "iterations=1"])
    train(config, lines.append)
    assert any("add importance_correction" in line for line in lines)
    assert any("is not below iterations=1" in line for line in lines)
