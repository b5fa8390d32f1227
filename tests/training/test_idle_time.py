"""Shares of idle time: of a trainer and an engine that take turns, and of ones that work at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.rollout.busy_clock import BusyClock
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.idle_time import IdleTime
from tests.support.runs import run
from tests.support.tiny import TINY


class Time:
    """A clock that tests set."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr("ecrl.rollout.busy_clock.time", clock)
    monkeypatch.setattr("ecrl.training.idle_time.time", clock)
    return clock


def test_shares_by_hand(clock: Time) -> None:
    engine = BusyClock("engine")
    idle = IdleTime(engine)
    engine.start()
    clock.now += 1
    engine.start()  # two things go on
    clock.now += 1
    engine.stop()
    with idle.waiting.running():
        clock.now += 1
    engine.stop()  # busy for 3 of the first 3 seconds
    with idle.left_out(), idle.waiting.running():
        clock.now += 50
    clock.now += 1
    assert idle.shares() == {"time/engine_idle": 0.25, "time/trainer_idle": 0.25}
    clock.now += 2
    assert idle.shares() == {"time/engine_idle": 1.0, "time/trainer_idle": 0.0}


def test_every_iteration_logs_them(tiny_model: Path, tmp_path: Path) -> None:
    base = [*TINY, f"model.path={tiny_model}", "iterations=2", "eval.every=1", "eval.problems=2", "eval.k=1"]
    start, *rows = read_metrics(run(base, tmp_path / "run") / "metrics.jsonl")
    assert "time/engine_idle" not in start
    for row in rows:
        engine, trainer = row["time/engine_idle"], row["time/trainer_idle"]
        # They take turns: whenever the engine draws, the trainer waits.
        assert 0 < 1 - engine < trainer < 1
        assert row["time/sync"] >= 0
