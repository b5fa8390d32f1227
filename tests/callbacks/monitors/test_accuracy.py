"""Covariance by the accuracy of a prompt, by hand."""

from __future__ import annotations

import pytest

from ecrl.callbacks.monitors.accuracy import AccuracyMonitor
from tests.support.monitors import plan_of, recording, trajectory
from tests.support.tokens import two_prompts


def test_covariance_by_accuracy_by_hand() -> None:
    """Prompt 3 is always right, 7 in one of four, 9 never; problem 1 was drawn and dropped."""
    tokens = two_prompts()
    monitor, module = AccuracyMonitor(), recording()
    rewards = {9: [0.0, 0.0], 7: [0.0, 1.0, 0.0, 0.0], 3: [1.0, 1.0], 1: [0.5]}
    monitor.on_rollout(module, [trajectory(p, r) for p, some in rewards.items() for r in some])
    monitor.on_plan(module, plan_of(tokens), fresh=False)
    assert not module.recorder.flush().numbers
    monitor.on_plan(module, plan_of(tokens), fresh=True)
    x = [v + 11.5 / 7 for v in (-1.0, -3.0, -1.0, -3.0, -1.0, -2.0, -0.5)]
    cov = [u * (a - 6 / 7) for u, a in zip(x, (3.0, 3.0, 0.0, 0.0, 1.0, -1.0, 0.0), strict=True)]
    assert module.recorder.flush().numbers == pytest.approx(
        {
            "cov/accuracy_0-25%": sum(cov[:4]) / 4,
            "cov/accuracy_100%": sum(cov[4:6]) / 2,
            "cov/accuracy_0%": cov[6],
            "cov/group/mean": 0.25,
            "cov/group/accuracy_0-25%": 0.0,
            "cov/group/accuracy_100%": 0.5,
        },
        abs=1e-6,
    )
