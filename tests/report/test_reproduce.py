"""Commands that make a run again."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from ecrl.config.compose import build_config
from ecrl.report.reproduce import train_overrides
from ecrl.report.runs import flat


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=[clip_cov,adaptive_entropy]", "strategy.clip_cov.fraction=0.01", "seed=7"],
        ["strategy=[]", "objective=dapo", "objective.bounds.high=0.3", "rollout.temperature=0.7"],
        ["strategy=[kl_cov]", "engine=vllm_server", "model.lora.r=8", "model.path=/models/a b"],
        ["env.kwargs.note='it\\'s 1, 2'", "strategy=[]", "model.path='1'"],
        ["env=mixture", "strategy=[]", "update.row_tokens=null", "trainer=fsdp"],
    ],
)
def test_commands_compose_to_the_same_settings(overrides: list[str]) -> None:
    config = build_config(overrides)
    words = train_overrides(dict(flat(asdict(config))))
    assert words is not None
    assert asdict(build_config([*words, f"iterations={config.iterations}"])) == asdict(config)
