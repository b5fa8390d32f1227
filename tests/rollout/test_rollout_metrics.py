"""Numbers of a rollout: entropy, means."""

from __future__ import annotations

from typing import Any

import pytest

from ecrl.engines.base import Completion
from ecrl.rollout.rollout_metrics import rollout_entropy, rollout_metrics
from ecrl.rollout.trajectory import Trajectory, Turn


def trajectory(reward: float, entropy: list[float], problem: int = 0, reason: Any = "stop") -> Trajectory:
    completion = Completion([5] * len(entropy), [-1.0] * len(entropy), entropy, reason, 0)
    cut = reason == "length"
    return Trajectory(
        [1], [Turn([], completion)], problem, 0, reward, not cut, cut, {"valid": 1.0}, None, "", ""
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
