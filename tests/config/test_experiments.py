"""The shipped experiments have the paper's settings."""

from __future__ import annotations

import pytest

from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.targets import build

PAPER = [f"paper_{size}_{name}" for size in ("7b", "32b") for name in ("grpo", "clip_cov", "kl_cov")]


def test_the_shipped_experiments_are_the_papers() -> None:
    assert set(PAPER) == {name for name in options("experiment") if name.startswith("paper")}


@pytest.mark.parametrize("name", PAPER)
def test_experiments_have_the_papers_settings(name: str) -> None:
    _, size, algorithm = name.split("_", 2)
    config = build_config([f"experiment={name}"])
    assert (config.rollout.prompts, config.rollout.group_size, config.rollout.temperature) == (256, 8, 1.0)
    assert config.rollout.max_new_tokens == 8192
    assert (config.update.minibatches, config.update.epochs) == (8, 1)
    assert config.update.lr == {"7b": 5e-7, "32b": 1e-6}[size]
    assert (config.update.weight_decay, config.update.grad_clip) == (0.0, 1.0)
    assert (config.eval.every, config.eval.k, config.eval.temperature) == (4, 32, 0.6)
    assert config.iterations * config.update.minibatches == 2400
    strategies = build_strategies(config.strategy)
    assert [s.name for s in strategies] == ([] if algorithm == "grpo" else [algorithm])
    check_stack(config, strategies)
    objective = build(config.objective)
    assert objective.aggregation.func.__name__ == "token_mean"
    assert objective.filters.drop_zero_variance and objective.filters.max_resample > 0
    width = 1.0 if algorithm == "clip_cov" else 0.2
    assert (objective.bounds.low, objective.bounds.high) == (width, width)
    chosen = config.strategy.get(algorithm, {})
    if algorithm == "clip_cov":
        assert (chosen["fraction"], chosen["low"], chosen["high"]) == (2e-4, 1.0, 5.0)
    if algorithm == "kl_cov":
        assert (chosen["fraction"], chosen["coefficient"]) == ({"7b": 2e-3, "32b": 2e-4}[size], 1.0)
    assert config.engine["_target_"] == "ecrl.engines.vllm.colocated.VLLMEngine"
    assert config.trainer.precision == "bf16-mixed" and config.trainer.parallel == "fsdp"
