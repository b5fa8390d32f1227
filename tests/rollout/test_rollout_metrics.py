"""Numbers that are reported: pass@k, majority votes, entropy, covariance, means, files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecrl.algorithm.covariance import token_covariance
from ecrl.algorithm.loss_plan import make_loss_plan
from ecrl.algorithm.objective import Objective
from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.callbacks.monitors.samples import cell
from ecrl.config.schema import Config
from ecrl.engines.base import Completion
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.pass_at_k import majority_correct, pass_at_k, summarise
from ecrl.rollout.rollout_metrics import rollout_entropy, rollout_metrics
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.runs.metrics_file import drop_after, read_metrics
from ecrl.training.run import train
from tests.support.tokens import make_tokens


def trajectory(reward: float, entropy: list[float], problem: int = 0, reason: Any = "stop") -> Trajectory:
    completion = Completion([5] * len(entropy), [-1.0] * len(entropy), entropy, reason, 0)
    cut = reason == "length"
    return Trajectory(
        [1], [Turn([], completion)], problem, 0, reward, not cut, cut, {"valid": 1.0}, None, "", ""
    )


def test_pass_at_k() -> None:
    # 4 answers, 1 right: one draw hits ¼, two draws 1 − C(3,2)/C(4,2) = ½
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(16, 16, 1) == 1.0


def test_pass_at_k_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    counts = rng.binomial(16, 0.3, size=20000)
    estimate = np.mean([pass_at_k(16, int(c), 4) for c in counts])
    assert estimate == pytest.approx(1 - 0.7**4, abs=0.005)


def test_majority() -> None:
    assert majority_correct(["7", "7", "3"], [True, True, False]) == 1.0
    assert majority_correct(["7", "3", "3"], [True, False, False]) == 0.0
    assert majority_correct(["7", "3"], [True, False]) == 0.5
    assert majority_correct([None, None, "7"], [False, False, True]) == 1.0
    assert majority_correct([None, None], [False, False]) == 0.0


def test_summary_over_problems() -> None:
    rewards = np.asarray([[1.0, 0.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    answers = [["a", "b", "b", "c"], ["a", "a", "a", "a"]]
    result = summarise(rewards, answers)
    assert result == pytest.approx(
        {"avg@4": 0.6875, "pass@1": 0.625, "pass@2": 0.75, "pass@4": 1.0, "maj@4": 0.5}
    )


def test_entropy_is_the_mean_over_responses_of_the_mean_over_tokens() -> None:
    # (1 + 2 + 3)/3 = 2 and 4 → 3, not the token mean 10/4
    assert rollout_entropy([trajectory(0, [1.0, 2.0, 3.0]), trajectory(0, [4.0])]) == pytest.approx(3.0)


def test_rollout_metrics() -> None:
    numbers = rollout_metrics(
        [trajectory(1, [1.0]), trajectory(0, [1.0] * 3, reason="length"), trajectory(1, [1.0], 1)]
    )
    assert numbers["rollout/reward"] == pytest.approx(2 / 3)
    assert numbers["rollout/length"] == pytest.approx(5 / 3)
    assert numbers["rollout/truncated"] == pytest.approx(1 / 3)
    assert numbers["rollout/zero_variance"] == pytest.approx(1 / 3)
    assert numbers["env/valid"] == 1.0


def test_token_covariance() -> None:
    got = token_covariance(torch.tensor([-1.0, -3.0, -2.0]), torch.tensor([1.0, -1.0, 3.0]))
    # means −2 and 1
    assert got.tolist() == pytest.approx([0.0, 2.0, 0.0], abs=1e-6)


def test_covariance_sign_tells_where_entropy_goes() -> None:
    """Two actions, one policy gradient step: positive covariance lowers the entropy, negative raises it."""
    for advantages in ([1.0, -1.0], [-1.0, 1.0]):
        logits = torch.tensor([log(0.8), log(0.2)], requires_grad=True)
        probs = logits.softmax(0)
        value = (probs * torch.tensor(advantages)).sum()
        (slope,) = torch.autograd.grad(value, logits)
        after = (logits + 0.01 * slope).softmax(0)
        change = (-(after * after.log()).sum() + (probs * probs.log()).sum()).detach()
        drawn = torch.tensor([0] * 8 + [1] * 2)
        cov = token_covariance(probs.log().detach()[drawn], torch.tensor(advantages)[drawn]).mean()
        assert float(cov) * float(change) < 0


def test_monitor_looks_at_fresh_minibatches_only() -> None:
    tokens = make_tokens([-1.0, -3.0, -2.0, -2.0], [1.0, -1.0, 3.0, 1.0])
    plan = make_loss_plan(replace(tokens, logprobs=tokens.logprobs.detach()), Objective(), [])
    recorder = MetricsRecorder()
    module: Any = type("Module", (), {"recorder": recorder, "iteration": 0})()
    monitor = CovarianceMonitor(every=1)
    monitor.on_plan(module, plan, fresh=False)
    assert recorder.flush().numbers == {}
    monitor.on_plan(module, plan, fresh=True)
    record = recorder.flush()
    # log-probs minus −2: 1, −1, 0, 0; advantages minus 1: 0, −2, 2, 0 → 0, 2, 0, 0
    assert record.numbers["cov/mean"] == pytest.approx(0.5)
    assert record.numbers["cov/max"] == record.numbers["cov/top_20%"] == pytest.approx(2.0)
    assert sorted(record.histograms["cov/tokens"].tolist()) == pytest.approx([0.0, 0.0, 0.0, 2.0])


def test_recorder_weighs_and_times_exclusively() -> None:
    recorder = MetricsRecorder()
    recorder.record("a", 1.0, weight=1)
    recorder.record("a", 4.0, weight=2)
    with recorder.timer("outer"):
        time.sleep(0.02)
        with recorder.timer("inner"):
            time.sleep(0.06)
    numbers = recorder.flush().numbers
    assert numbers["a"] == pytest.approx(3.0)
    assert numbers["time/inner"] >= 0.06 > numbers["time/outer"] >= 0.02
    assert recorder.flush().numbers == {}


def test_tensorboard_and_jsonl_say_the_same(tiny: Callable[..., Config]) -> None:
    config = tiny("iterations=2", "log.samples_every=1", "eval.every=1", "eval.problems=4", "eval.k=2")
    run_dir = train(config, lambda line: None).run_dir
    board = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    board.Reload()
    rows = read_metrics(run_dir / "metrics.jsonl")
    names = {name for row in rows for name in row} - {"iteration", "step"}
    assert names == set(board.Tags()["scalars"])
    for name in names:
        written = [(r["iteration"], r[name]) for r in rows if name in r]
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert np.allclose(shown, written, rtol=1e-6)
    assert "cov/tokens" in board.Tags()["histograms"]
    assert any(tag.startswith("samples") for tag in board.Tags()["tensors"])
    assert any("custom_scalars" in tag for tag in board.Tags()["tensors"])


def test_cells_cannot_break_the_table() -> None:
    text = cell("a|b\n`c` <script> " + "x" * 5000)
    assert "|" not in text and "\n" not in text and "`" not in text and "<script" not in text
    assert len(text) < 1000


def test_history_reports_where_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UsageError, match="is missing"):
        read_metrics(path)
    path.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iterat')
    assert [row["iteration"] for row in read_metrics(path)] == [1, 2]
    drop_after(path, 1)
    assert path.read_text() == '{"iteration": 1}\n'
    path.write_text('{"iteration": 1}\nnonsense\n{"iteration": 2}\n')
    with pytest.raises(UsageError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_dynamic_sampling_draws_again_up_to_its_bound(tiny: Callable[..., Config]) -> None:
    """Countdown is too hard for a random policy: every group is dropped, every round is drawn."""
    config = tiny("env=countdown", "iterations=1", "objective.filters.max_resample=2")
    (row,) = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    assert row["rollout/completions"] == 3 * 8 * 4
    keep_all = ["objective.filters.drop_zero_variance=false", f"run_dir={config.run_dir}-2"]
    config = tiny("iterations=1", "objective.filters.max_resample=2", *keep_all)
    (row,) = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    assert row["rollout/completions"] == 8 * 4
