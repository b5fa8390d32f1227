"""The budget: a small task on which it holds its target, exact resume, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ecrl.callbacks import ClipCov, EntropyBonus, EntropyBudget
from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.runs import assert_same_run, run, silent
from tests.support.tiny import TINY

BUDGET = "strategy.entropy_budget"
TEMPERATURE = [
    "strategy=[entropy_budget]",
    f"{BUDGET}.knob=rollout.temperature",
    f"{BUDGET}.minimum=0.2",
    f"{BUDGET}.maximum=5",
]


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return read_metrics(run_dir / "metrics.jsonl")


HOLDS = {
    "a coefficient": ["strategy=[entropy_bonus,entropy_budget]", f"{BUDGET}.maximum=0.5"],
    "a covariance fraction": [
        "strategy=[clip_cov,entropy_budget]",
        "strategy.clip_cov.low=0.05",
        "strategy.clip_cov.high=100",
        f"{BUDGET}.knob=clip_cov.fraction",
        f"{BUDGET}.maximum=1",
    ],
    # It acts at once, not by degrees as the others do: less is to be proportional, more to be summed.
    "the temperature": [
        *TEMPERATURE,
        "update.lr=2e-3",
        f"{BUDGET}.target=3",
        f"{BUDGET}.proportional=0.02",
        f"{BUDGET}.integral=0.15",
    ],
}


SEVENS = [*TINY, "env=tests.support.tasks:test/Sevens-v0", "update.lr=5e-3"]


@pytest.mark.slow
def test_without_control_the_task_collapses(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(run([*SEVENS, f"model.path={tiny_model}"], tmp_path / "run", "iterations=50"))
    assert rows[-1]["policy/entropy"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("knob", HOLDS)
def test_holds_its_target_within_a_tenth(knob: str, tiny_model: Path, tmp_path: Path) -> None:
    base = [*SEVENS, f"model.path={tiny_model}", f"{BUDGET}.target=1.5"]
    rows = rows_of(run(base, tmp_path / "run", *HOLDS[knob], "iterations=110"))[-40:]
    wanted = rows[-1]["strategy/entropy_budget/target"]
    assert np.mean([row["policy/entropy"] for row in rows]) == pytest.approx(wanted, rel=0.1)
    assert len({row["strategy/entropy_budget/knob"] for row in rows}) > 20  # by the knob, not by its limits
    assert rows[-1]["rollout/reward"] > 0.3  # it learns at the same time


@pytest.mark.parametrize("staleness", [0, 1])
def test_resume_is_exact_and_a_rollout_is_scored_at_its_own_temperature(
    staleness: int, tiny_model: Path, tmp_path: Path
) -> None:
    shape = [f"{BUDGET}.spend=0.5", f"{BUDGET}.shape=cosine", f"{BUDGET}.by=4"]
    base = [*TINY, f"model.path={tiny_model}", *TEMPERATURE, *shape, f"rollout.staleness={staleness}"]
    whole = run(base, tmp_path / "whole", "iterations=5")
    parts = run(base, tmp_path / "parts", "iterations=2")
    train(resumed_config([f"resume={parts}", "iterations=5"]), silent)
    assert_same_run(whole, parts)
    rows = rows_of(whole)
    assert len({row[f"{BUDGET.replace('.', '/')}/knob"] for row in rows}) > 2
    # The same weights at the same temperature: only their updates since may tell engine from trainer.
    assert rows[0]["mismatch/max"] == 0.0
    assert all(row["mismatch/max"] < (1e-5 if staleness == 0 else 0.5) for row in rows)
    first = rows[0]["policy/entropy"]
    targets = [row[f"{BUDGET.replace('.', '/')}/target"] / first for row in rows]
    assert targets == pytest.approx([1.0, 1 - 0.5 * (1 - 0.5**0.5) / 2, 0.75, 0.5 + 0.5 * 0.1464466, 0.5])


def test_moves_another_strategy_and_sets_it_again_on_resume(tiny_model: Path, tmp_path: Path) -> None:
    base = [*TINY, f"model.path={tiny_model}", "strategy=[entropy_bonus,entropy_budget]"]
    base += [f"{BUDGET}.target=9", f"{BUDGET}.proportional=0.5"]
    whole = run(base, tmp_path / "whole", "iterations=4")
    parts = run(base, tmp_path / "parts", "iterations=3")
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)
    for row in rows_of(whole):
        knob = row["strategy/entropy_budget/knob"]
        assert row["strategy/entropy_bonus/coefficient"] == knob > 1e-3


@pytest.mark.parametrize(
    ("kwargs", "wanted"),
    [
        ({"minimum": 1.0, "maximum": 1.0}, "minimum must be below"),
        ({"target": 0.0}, "positive entropy"),
        ({"spend": 1.0}, "share of the first entropy"),
        ({"shape": "lineal"}, "Did you mean 'linear'"),
        ({"shape": "linear"}, "by is the iteration"),
        ({"by": 10}, "by is the iteration"),
        ({"shape": "cosine", "by": 0}, "by is the iteration"),
        ({"proportional": 1.0, "integral": -0.1}, "of one sign"),
        ({"integral": float("inf")}, "finite"),
    ],
)
def test_values_out_of_range_are_refused(kwargs: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        EntropyBudget(**kwargs)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["strategy=[entropy_budget]"], "Known: rollout.temperature"),
        (
            ["strategy=[clip_cov,entropy_budget]", f"{BUDGET}.knob=clip_cov.fracton"],
            "Did you mean 'clip_cov.fraction'",
        ),
        (["strategy=[clip_cov,entropy_budget]", f"{BUDGET}.knob=clip_cov.name"], "Known: clip_cov.fraction"),
        (
            [
                "strategy=[clip_higher,entropy_budget]",
                "strategy.clip_higher.high=null",
                f"{BUDGET}.knob=clip_higher.high",
            ],
            "Known: clip_higher.factor",
        ),
        (["strategy=[entropy_bonus,entropy_budget]", "strategy.entropy_bonus.coefficient=1"], "starts at 1"),
        (["strategy=[entropy_bonus,entropy_budget]", f"{BUDGET}.minimum=-1"], "coefficient must be finite"),
        (
            ["strategy=[clip_cov,entropy_budget]", f"{BUDGET}.knob=clip_cov.fraction", f"{BUDGET}.maximum=2"],
            "fraction is a share",
        ),
        ([*TEMPERATURE, f"{BUDGET}.minimum=0"], "temperature's minimum must be above 0"),
    ],
)
def test_stacks_that_cannot_work_are_refused(
    overrides: list[str], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *TINY[:-1], f"run_dir={tmp_path / 'run'}", *overrides]) != 0
    said = capsys.readouterr().err
    assert wanted in said and "Traceback" not in said and not (tmp_path / "run").exists()


def test_two_budgets_of_one_knob_are_refused() -> None:
    config = build_config(["strategy=[entropy_bonus,entropy_budget]"])
    twin = {"twin": dict(config.strategy["entropy_budget"])}
    config.strategy = config.strategy | twin
    with pytest.raises(UsageError, match="another budget moves entropy_bonus"):
        preflight(config)


def test_gains_of_zero_are_said_to_do_nothing() -> None:
    config = build_config(["strategy=[entropy_bonus]"])
    budget = EntropyBudget(proportional=0.0, integral=0.0)
    bonus = EntropyBonus()
    bonus.name = "entropy_bonus"
    assert budget.check(config, [bonus, ClipCov()]) == ["both gains are 0, so it does nothing."]


def moved(budget: EntropyBudget, entropies: list[float]) -> list[float]:
    """The bonus after each rollout, by its entropy."""
    bonus = EntropyBonus(coefficient=0.01)
    bonus.name, budget.name = "entropy_bonus", "entropy_budget"
    module: Any = SimpleNamespace(strategies=[bonus], recorder=MetricsRecorder(), iteration=0)
    found = []
    for module.iteration, module.policy_entropy in enumerate(entropies):
        budget.on_rollout(module, [])
        found.append(bonus.coefficient)
    return found


def test_an_entropy_that_is_no_number_leaves_the_knob_where_it_is() -> None:
    nan = float("nan")
    before, held, after = moved(EntropyBudget(), [0.19, nan, 0.19])
    plain = moved(EntropyBudget(), [0.19, 0.19])
    assert [before, after] == plain and held == before != 0.01
    assert moved(EntropyBudget(spend=0.5), [nan, 0.4]) == [0.01, *moved(EntropyBudget(spend=0.5), [0.4])]


def test_a_policy_without_entropy() -> None:
    """A part of nothing leaves nothing to hold; a target in nats is as far as can be."""
    assert moved(EntropyBudget(spend=0.5), [0.0, 0.0]) == [0.01, 0.01]
    assert moved(EntropyBudget(shape="linear", by=4), [0.0, 0.0]) == [0.01, 0.05]
    assert moved(EntropyBudget(), [0.0]) == [0.05]
