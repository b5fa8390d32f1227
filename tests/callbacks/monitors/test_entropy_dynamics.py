"""Entropy dynamics: values by hand, any partition, real runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecrl.callbacks.monitors.accuracy import AccuracyMonitor
from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.callbacks.monitors.entropy_dynamics import EntropyDynamics, entropy_change
from ecrl.callbacks.monitors.leading_tokens import LeadingTokens
from ecrl.callbacks.monitors.token_picture import TokenPicture
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.metrics import Record
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.run import train
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.monitors import faces, plan_of, recording, trajectory
from tests.support.runs import assert_same_run, silent
from tests.support.tokens import two_prompts


def observed(config: Config, splits: Sequence[tuple[int, int]]) -> list[Record]:
    """What the monitors say of one minibatch, for each way to split it into micro-batches."""
    dynamics = EntropyDynamics()
    module = make_module(config, [])
    monitors = [dynamics, CovarianceMonitor(every=1), AccuracyMonitor(), LeadingTokens(every=1)]
    monitors += [TokenPicture(every=1, count=3)]
    module.trainer.callbacks += monitors  # type: ignore[attr-defined]
    batch = replace(make_batch(module), fresh=True)
    rewards = zip(batch.group_ids.tolist(), batch.rewards.tolist(), strict=True)
    monitors[2].on_rollout(module, [trajectory(*pair) for pair in rewards])  # type: ignore[attr-defined]
    records = []
    for config.update.max_tokens, config.update.row_tokens in splits:
        gradient(module, batch)
        records.append(module.recorder.flush())
        records[-1].numbers["by_responses"] = dynamics._by_responses
        records[-1].numbers["by_tokens"] = dynamics._by_tokens
        dynamics._forget()
    return records


def test_partition_does_not_matter(tiny: Callable[..., Config]) -> None:
    """All of it is of the whole minibatch, whatever the micro-batches."""
    whole, *parts = observed(tiny(), [(10**6, 0), (64, 0), (20, 0)])
    names = [n for n in whole.numbers if n.startswith(("cov/", "by_"))]
    assert {"cov/top_0.02%", "cov/group/mean", "by_responses"} <= set(names)
    assert whole.numbers["by_responses"] != 0
    for part in parts:
        assert {n: part.numbers[n] for n in names} == {n: whole.numbers[n] for n in names}
        assert part.texts == whole.texts
        for one, other in zip(
            *(faces(r.figures["covariance/completions"]) for r in (part, whole)), strict=True
        ):
            assert np.array_equal(one, other)


def test_entropy_change_by_hand() -> None:
    """π = (¾, ¼), z₁ grows by δ: −Cov[log π, Δz] = −π₁π₂·log 3·δ; a shift of all logits does nothing."""
    before = torch.tensor([[0.75, 0.25]]).log().repeat(40, 1)
    step = torch.tensor([[1e-3, 0.0]]) + 5.0
    measured, predicted = entropy_change(before, before + step)
    assert predicted == pytest.approx(-0.1875 * np.log(3) * 1e-3, rel=1e-3)
    assert measured == pytest.approx(predicted, rel=1e-2)
    measured, predicted = entropy_change(before, before - 2 * torch.tensor([[0.5, 0.0]]))
    assert predicted == pytest.approx(0.1875 * np.log(3), rel=1e-5)
    odds = 3 * np.exp(-1)
    p = odds / (1 + odds)
    entropy = [-(q * np.log(q) + (1 - q) * np.log(1 - q)) for q in (p, 0.75)]
    assert measured == pytest.approx(entropy[0] - entropy[1], rel=1e-5)


DYNAMICS = ["monitor=[standard,entropy_dynamics]", "log.samples_every=2", "rollout.max_new_tokens=6"]


def test_a_real_run_shows_everything(tiny: Callable[..., Config]) -> None:
    """With small steps, −Cov[log π, Δz] is the measured change; only numbers go to the history."""
    config = tiny(*DYNAMICS, "iterations=10", "update.lr=1e-5")
    run_dir = train(config, silent).run_dir
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert len(rows) == 10
    last = rows[-1]
    assert last["dynamics/correlation_by_logits"] > 0.99
    assert last["dynamics/slope_by_logits"] == pytest.approx(1, abs=0.05)
    measured = [row["dynamics/measured"] for row in rows]
    predicted = [row["dynamics/by_logits"] for row in rows]
    assert np.corrcoef(predicted, measured)[0, 1] == pytest.approx(last["dynamics/correlation_by_logits"])
    assert all(row["dynamics/by_tokens"] != 0 and row["dynamics/by_responses"] != 0 for row in rows)
    assert {n for n in last if n.startswith("cov/accuracy_")} and "cov/top_50%" in last
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        assert all(v is None or isinstance(v, int | float) for v in json.loads(line).values())
    board = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()
    for name in ("dynamics/scatter", "covariance/completions"):
        images = board.Images(name)
        assert [image.step for image in images] == [2, 4, 6, 8, 10]
        assert images[-1].encoded_image_string.startswith(b"\x89PNG") and images[-1].width > 300
    assert [e.step for e in board.Tensors("covariance/tokens/text_summary")] == [2, 4, 6, 8, 10]


@pytest.mark.slow
def test_first_order_ends_with_large_steps(tiny: Callable[..., Config]) -> None:
    """A random policy is nearly uniform, where the first-order term vanishes: a hundred times the step."""
    run_dir = train(tiny(*DYNAMICS, "iterations=10", "update.lr=1e-3"), silent).run_dir
    last = read_metrics(run_dir / "metrics.jsonl")[-1]
    assert abs(last["dynamics/slope_by_logits"] - 1) > 0.3


@pytest.mark.slow
def test_dynamics_resume_exactly(tiny: Callable[..., Config], tmp_path: Path) -> None:
    whole = train(tiny(*DYNAMICS, "iterations=5", f"run_dir={tmp_path / 'whole'}"), silent).run_dir
    parts = train(tiny(*DYNAMICS, "iterations=2", f"run_dir={tmp_path / 'parts'}"), silent).run_dir
    train(resumed_config([f"resume={parts}", "iterations=5"]), silent)
    assert_same_run(whole, parts)
    assert "dynamics/slope_by_logits" in read_metrics(parts / "metrics.jsonl")[-1]


@pytest.mark.parametrize("knobs", [{"problems": 0}, {"tokens": 0}, {"problems": 10, "tokens": 9}])
def test_the_probe_has_a_position_for_each_problem(knobs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="between 1 and tokens"):
        EntropyDynamics(**knobs)


def test_an_iteration_that_learns_nothing_is_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """(0, 0) lies on any line through the origin: it would make agreement out of nothing."""
    dynamics = EntropyDynamics()
    changes = iter([(0.0, 0.0), (0.3, 0.1), (0.0, 0.0), (0.1, 0.3), (0.2, 0.25)])
    monkeypatch.setattr(dynamics, "_look", lambda module: torch.zeros(1, 2))
    monkeypatch.setattr("ecrl.callbacks.monitors.entropy_dynamics.entropy_change", lambda *_: next(changes))
    dynamics._logits = torch.zeros(1, 2)
    module, said = recording(), []
    module.config, module.learning_rate = SimpleNamespace(log=SimpleNamespace(samples_every=1)), 1.0
    trainer: Any = SimpleNamespace(max_epochs=5)
    for learnt in (False, True, False, True, True):
        if learnt:
            dynamics.on_plan(module, plan_of(two_prompts()), fresh=True)
        dynamics.on_train_epoch_end(trainer, module)
        said.append(module.recorder.flush())
    assert [bool(record.figures) for record in said] == [False, True, True, True, True]
    assert [("dynamics/slope_by_logits" in r.numbers) for r in said] == [False] * 4 + [True]
    # By hand: predicted .1 .3 .25, measured .3 .1 .2; Σxy over the means −.0200, Σx² .0217.
    assert said[-1].numbers["dynamics/slope_by_logits"] == pytest.approx(-0.02 / (0.13 / 6), rel=1e-6)
    assert all(record.numbers["dynamics/measured"] >= 0 for record in said)
