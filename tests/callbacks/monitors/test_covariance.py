"""The covariance monitor: quantiles, top shares, and when it looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ecrl.algorithm.loss_plan import make_loss_plan
from ecrl.algorithm.objective import Objective
from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.metrics import MetricsRecorder
from tests.support.monitors import recording
from tests.support.tokens import make_tokens


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


def test_covariance_quantiles_and_top_shares() -> None:
    """Log-probs and advantages are both ±i/2, i = 1…500: the covariances are i²/4, each twice."""
    half = [i / 2 for i in range(1, 501)]
    values = [*half, *(-x for x in half)]
    tokens = make_tokens(values, values)
    plan = make_loss_plan(replace(tokens, logprobs=tokens.logprobs.detach()), Objective(), [])
    module = recording()
    CovarianceMonitor(every=2).on_plan(module, plan, fresh=True)
    record = module.recorder.flush()
    square = [x * x for x in half for _ in range(2)][::-1]  # falling, each twice
    assert record.numbers == pytest.approx(
        {
            "cov/mean": sum(square) / 1000,
            "cov/max": 250.0**2,
            "cov/q99": square[10],
            "cov/q90": square[100],
            "cov/q50": square[500],
            "cov/top_0.02%": 250.0**2,
            "cov/top_0.2%": 250.0**2,
            "cov/top_2%": sum(square[:20]) / 20,
            "cov/top_20%": sum(square[:200]) / 200,
            "cov/top_50%": sum(square[:500]) / 500,
        },
        rel=1e-5,
    )
    assert not record.histograms


def test_covariance_uses_the_shaped_advantages_and_its_histogram_is_due() -> None:
    tokens = make_tokens([-1.0, -3.0], [1.0, 1.0])
    plan = make_loss_plan(replace(tokens, logprobs=tokens.logprobs.detach()), Objective(), [])
    shaped = replace(plan, tokens=replace(plan.tokens, advantages=torch.tensor([2.0, 0.0])))
    due = []
    for iteration in range(4):
        module = recording(iteration)
        CovarianceMonitor(every=2).on_plan(module, shaped, fresh=True)
        record = module.recorder.flush()
        assert record.numbers["cov/mean"] == pytest.approx(1.0)
        due.append("cov/tokens" in record.histograms)
    assert due == [False, True, False, True]
