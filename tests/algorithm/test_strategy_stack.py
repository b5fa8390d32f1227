"""Checks of a stack of strategies."""

from __future__ import annotations

from ecrl.algorithm.strategy_stack import check_stack
from ecrl.config.compose import build_config


def test_off_policy_updates_without_a_ratio_warn() -> None:
    def warnings(*words: str) -> list[str]:
        return check_stack(build_config(["strategy=[]", *words]), [])

    (warning,) = warnings("objective=rloo")
    assert "all but the first of the 4 updates" in warning
    assert warnings("objective=rloo", "update.minibatches=1") == []
    assert warnings("objective=rloo", "objective.surrogate._target_=ecrl.algorithm.losses.ppo_clip") == []
    assert warnings("objective=grpo") == []
