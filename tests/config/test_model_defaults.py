"""Where a run starts follows from its model; presets and the command line win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.config.compose import as_yaml, build_config
from ecrl.config.schema import Config

SMALL = (1e-4, "constant", 0, 16, ["kl_cov_small"])
HF = (1e-6, "constant", 10, 1024, ["kl_cov"])


def start(config: Config) -> tuple[Any, ...]:
    schedule = config.update.schedule
    lengths = config.rollout.max_new_tokens
    preset = "kl_cov_small" if config.strategy.get("kl_cov", {}).get("fraction") == 0.1 else "kl_cov"
    return config.update.lr, schedule.name, schedule.warmup, lengths, [preset] if config.strategy else []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], SMALL),
        (["model.hidden_size=64"], SMALL),
        (["model.path=Qwen/Qwen2.5-0.5B"], HF),
        (["model=qwen2_5_7b"], HF),
        (["model=qwen2_5_7b", "model_defaults=small"], SMALL),
        (["model=qwen2_5_7b", "update.lr=3e-6", "strategy=[]"], (3e-6, *HF[1:4], [])),
        (["update.schedule.warmup=3", "model.path=a/b"], (1e-6, "constant", 3, *HF[3:])),
        (["experiment=paper_7b_grpo"], (5e-7, "constant", 0, 8192, [])),
        (["experiment=paper_7b_kl_cov", "update.lr=2e-6"], (2e-6, "constant", 0, 8192, ["kl_cov"])),
    ],
)  # fmt: skip
def test_where_a_run_starts(words: list[str], expected: tuple[Any, ...]) -> None:
    config = build_config(words)
    assert start(config) == expected
    assert OmegaConf.select(OmegaConf.create(as_yaml(config)), "update.lr") == expected[0]


def test_the_small_model_keeps_its_own_from_a_folder(tiny_model: Path, tmp_path: Path) -> None:
    assert start(build_config([f"model.path={tiny_model}"])) == SMALL
    (tmp_path / "config.json").write_text("[1]")
    assert start(build_config([f"model.path={tmp_path}"])) == HF


def test_a_model_of_ones_own_group(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("path: me/mine\n")
    assert start(build_config(["model=mine"], tmp_path)) == HF


def test_a_share_below_one_token_is_warned_of() -> None:
    def warnings(*words: str) -> str:
        config = build_config(words)
        return " ".join(check_stack(config, list(build_strategies(config.strategy))))

    few = ["rollout.prompts=4", "rollout.group_size=2", "rollout.max_new_tokens=16", "update.minibatches=1"]
    several = [*few, "update.epochs=2"]
    assert "fraction=0.002 of at most 128 tokens in a minibatch" in warnings("strategy=[kl_cov]", *several)
    assert "fraction=0.0002 of at most 128 tokens" in warnings("strategy=[clip_cov]", *several)
    assert warnings("strategy=[kl_cov]", *several, "strategy.kl_cov.fraction=0.01") == ""
    assert warnings("model.path=a/b") == ""
