"""The entropy law, fitted as a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecrl.analysis.law import fit_law
from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.training.run import train
from tests.support.runs import history, silent
from tests.support.tiny import LEARNING, TINY, VALIDATED


def run(model: Path, run_dir: Path, *overrides: str) -> list[dict[str, Any]]:
    train(build_config([*TINY, f"model.path={model}", f"run_dir={run_dir}", *LEARNING, *overrides]), silent)
    return history(run_dir)


def test_a_run_forecasts_its_ceiling(validated: Path) -> None:
    rows = history(validated)
    said = [row["iteration"] for row in rows if "law/ceiling" in row]
    assert said == [5, 7, 9]  # every second one; five points first
    # At 9: validations 0 … 8, each with the entropy of the iteration after it.
    entropy = [rows[t + 1]["policy/entropy"] for t in range(9)]
    reward = [rows[t]["val/digits/avg@2"] for t in range(9)]
    law = fit_law(entropy, reward)
    assert rows[9]["law/a"] == law.a and rows[9]["law/ceiling"] == law.ceiling
    assert (rows[9]["law/ceiling_low"], rows[9]["law/ceiling_high"]) == law.ceiling_interval
    assert rows[9]["law/entropy_spent"] == pytest.approx(1 - entropy[-1] / entropy[0])
    gain = (reward[-1] - reward[0]) / (law.ceiling - reward[0])
    assert rows[9]["law/gain_reached"] == pytest.approx(gain)
    board = EventAccumulator(str(validated / "tensorboard")).Reload()
    assert [e.step for e in board.Images("law/H-R")] == said
    assert [e.step for e in board.Scalars("law/ceiling_high")] == said


@pytest.mark.slow
def test_a_resumed_run_forecasts_the_same(validated: Path, tiny_model: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    run(tiny_model, parts, "iterations=6", *VALIDATED)
    train(resumed_config([f"resume={parts}", "iterations=10"]), silent)
    assert history(parts) == history(validated)


@pytest.mark.slow
def test_without_validation_the_training_reward_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    rows = run(tiny_model, tmp_path / "run", "iterations=7")
    assert [row["iteration"] for row in rows if "law/ceiling" in row] == [7]
    law = fit_law([r["policy/entropy"] for r in rows[:6]], [r["rollout/reward"] for r in rows[:6]])
    assert rows[6]["law/b"] == law.b


@pytest.mark.slow
def test_what_allows_no_fit_stops_no_run(tiny_model: Path, tmp_path: Path) -> None:
    rows = run(tiny_model, tmp_path / "run", "iterations=7", "update.lr=1e-9")  # entropy hardly moves
    assert len(rows) == 7 and not any(name.startswith("law/") for row in rows for name in row)
