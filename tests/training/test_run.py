"""Whole runs: what a run's folder holds, seeds, learning, a run without any signal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tasks import DigitsEnv
from tests.support.tiny import FINISHED, TINY

PROMISED = """policy/entropy policy/ratio policy/clip_low policy/clip_high policy/grad_norm
    policy/kl_behaviour
    cov/mean cov/q99 cov/top_2% rollout/reward rollout/length rollout/truncated rollout/zero_variance
    val/digits/avg@2 val/digits/pass@2 val/digits/maj@2 val/digits/greedy val/mean/avg@k
    throughput/tokens_per_second time/generate time/score time/update time/verify strategy/kl_cov/fraction
    strategy/adaptive_entropy/coefficient"""


def test_the_validation_environment_is_tried_first(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("env=tests.training.test_run:test/TrainOnly-v0", "eval.every=1")
    with pytest.raises(UsageError, match="has no val"):
        train(config, silent)
    assert not (tmp_path / "run").exists()
    preflight(tiny("env=tests.training.test_run:test/TrainOnly-v0", "eval.every=0"))


class TrainOnly(DigitsEnv):
    """An environment without validation problems."""

    def __init__(self, *, split: Any = "train") -> None:
        if split == "val":
            raise UsageError("has no val")
        super().__init__(split=split)


gym.register("test/TrainOnly-v0", entry_point=TrainOnly)


def test_a_run_directory_holds_what_it_promises(finished_run: Path) -> None:
    run_dir = finished_run
    assert {p.name for p in run_dir.iterdir()} >= {
        "config.yaml", "metrics.jsonl", "checkpoints", "policy", "summary.json", "tensorboard",
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(run_dir / "policy")
    tokenizer = AutoTokenizer.from_pretrained(run_dir / "policy")
    assert tokenizer("3*(4+1)")["input_ids"] and model.config.model_type == "qwen2"
    trained = checkpoint_tensors(run_dir)
    assert all(torch.equal(p, trained[f"model.lm.{name}"]) for name, p in model.named_parameters())
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["iterations"] == 2 and summary["versions"]["torch"]
    row = read_metrics(run_dir / "metrics.jsonl")[-1]
    for name in PROMISED.split():
        assert isinstance(row[name], float), name


def test_same_seed_same_run_other_seed_other_run(base: list[str], finished_run: Path, tmp_path: Path) -> None:
    same = run(base, tmp_path / "same", *FINISHED, "update.max_tokens=16384")
    other = run(base, tmp_path / "other", *FINISHED, "seed=1")
    assert_same_run(finished_run, same)
    assert history(finished_run) != history(other)


def test_a_policy_learns_and_a_controller_holds(tiny_model: Path, tmp_path: Path) -> None:
    base = [*TINY, f"model.path={tiny_model}", "rollout.prompts=16", "rollout.group_size=8", "update.lr=3e-3"]
    run_dir = run(base, tmp_path / "plain", "iterations=40")
    rows = history(run_dir)
    assert rows[0]["rollout/reward"] < 0.15
    assert rows[-1]["rollout/reward"] > 0.9
    assert rows[-1]["policy/entropy"] < 0.7 * rows[0]["policy/entropy"]  # it collapses
    held = run(
        base,
        tmp_path / "held",
        "iterations=40",
        "strategy=[adaptive_entropy]",
        "strategy.adaptive_entropy.target=3.0",
        "strategy.adaptive_entropy.delta=0.02",
    )
    assert history(held)[-1]["policy/entropy"] > rows[-1]["policy/entropy"] + 0.3


def test_a_run_without_any_signal_finishes(base: list[str], tmp_path: Path) -> None:
    """Every group has zero variance: no update, no crash, the weights stay."""
    base = [o for o in base if not o.startswith("env=")] + ["env=countdown"]
    run_dir = run(base, tmp_path / "run", "iterations=1", "checkpoint.every=1")
    (row,) = [r for r in history(run_dir) if r["iteration"] == 1]
    assert row["rollout/zero_variance"] == 1.0 and "policy/loss" not in row
