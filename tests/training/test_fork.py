"""Best and last checkpoints of a run that collapses, going back, forks, and the exported policy's type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from ecrl.cli import main
from ecrl.config.eval_sets import VALIDATION_MEAN
from ecrl.config.resume import forked_config, resumed_config
from ecrl.runs.checkpoints import best_iteration, saved_iterations
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.cli import refused
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import LEARNING, TINY, VALIDATED


@pytest.fixture(scope="module")
def collapsed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learns, is best at iteration 4 of 6, and then resumes with a rate that destroys it."""
    base = [*TINY, *LEARNING, *VALIDATED, f"model.path={tiny_model}", "update.lr=2e-2", "update.grad_clip=0"]
    return run(base, tmp_path_factory.mktemp("collapsed") / "run", "iterations=8", "checkpoint.every=3")


@pytest.mark.slow
def test_the_best_checkpoint_survives(collapsed: Path) -> None:
    values = {row["iteration"]: row[VALIDATION_MEAN] for row in history(collapsed)}
    best = best_iteration(collapsed, VALIDATION_MEAN)
    trained = {i: value for i, value in values.items() if i > 0}
    assert best is not None and values[best] == max(trained.values())
    assert saved_iterations(collapsed) == sorted({best, 8})


def test_every_third_stays_and_the_last_two(base: list[str], tmp_path: Path) -> None:
    keep = ["checkpoint={every: 2, keep: 2, keep_every: 3, best: null}", "eval.every=0"]
    run_dir = run(base, tmp_path / "run", "iterations=7", *keep)
    assert saved_iterations(run_dir) == [3, 6, 7]


def test_going_back_is_exact(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=3", "checkpoint={every: 1, keep: 3}")
    shutil.copytree(whole, tmp_path / "back")
    train(resumed_config([f"resume={tmp_path / 'back'}", "checkpoint=1"]), silent)
    assert_same_run(whole, tmp_path / "back")


def test_a_fork_takes_weights_and_optimizer_and_counts_from_0(base: list[str], tmp_path: Path) -> None:
    parent = run(base, tmp_path / "parent", "iterations=2", "checkpoint={every: 1, keep: 2}")
    words = [f"fork={parent}", "checkpoint=1", f"run_dir={tmp_path / 'fork'}"]
    changed = ["update.lr=0", "strategy=[clip_cov]", "env=tests.support.tasks:test/Count-v0", "iterations=1"]
    config = forked_config([*words, *changed])
    assert list(config.strategy) == ["clip_cov"] and config.eval.problems == 4  # the parent's
    fork = train(config, silent).run_dir
    before, after = checkpoint_tensors(parent, "1"), checkpoint_tensors(fork)
    weights = [name for name in before if name.startswith("model.")]
    assert all(torch.equal(before[name], after[name]) for name in weights)
    steps = {float(t) for name, t in after.items() if name.endswith(".step")}
    moved = [name for name in before if name.endswith("exp_avg_sq")]
    assert min(steps) > 2 and any(not torch.equal(before[name], after[name]) for name in moved)
    assert [row["iteration"] for row in history(fork)] == [0, 1]
    saved = OmegaConf.load(fork / "config.yaml")
    assert (saved.fork, saved.checkpoint.load, saved.seed) == (str(parent), "1", 0)
    named = {"run": str(parent), "iteration": 1}
    assert json.loads((fork / "summary.json").read_text())["parent"] == named
    resumed = train(resumed_config([f"resume={fork}", "iterations=2"]), silent)  # goes on by itself
    assert [row["iteration"] for row in history(resumed.run_dir)] == [0, 1, 2]
    assert json.loads((fork / "summary.json").read_text())["parent"] == named


def test_a_fork_resumes_exactly_and_another_optimizer_begins_anew(base: list[str], tmp_path: Path) -> None:
    parent = run(base, tmp_path / "parent", "iterations=1")
    words = [f"fork={parent}", "update.optimizer=muon", "update.schedule={name: cosine, warmup: 1}"]
    keep = ["iterations=3", "checkpoint={every: 1, keep: 3}"]
    whole = train(forked_config([*words, *keep, f"run_dir={tmp_path / 'fork'}"]), silent).run_dir
    steps = {float(t) for name, t in checkpoint_tensors(whole, "1").items() if name.endswith(".step")}
    assert steps == {2.0}
    shutil.copytree(whole, tmp_path / "back")
    train(resumed_config([f"resume={tmp_path / 'back'}", "checkpoint=1"]), silent)
    assert_same_run(whole, tmp_path / "back")


@pytest.mark.slow
def test_a_fork_of_the_small_model_keeps_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its warm start is that of the parent's task and seed, also for the reference policy."""
    monkeypatch.setenv("ECRL_CACHE", str(tmp_path / "cache"))
    small = ["model.hidden_size=32", "model.layers=1", "model.heads=2", "warmup.steps=5", "warmup.batch=4"]
    parent = run([*TINY, *small, "env=strings"], tmp_path / "parent", "iterations=1")
    words = [f"fork={parent}", f"run_dir={tmp_path / 'fork'}", "seed=1", "env=countdown"]
    fork = train(forked_config([*words, "strategy=[reference_kl]"]), silent).run_dir
    assert len(list((tmp_path / "cache").glob("base-*"))) == 1
    assert history(fork)[-1]["iteration"] == 1


def test_refusals(base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent = run(base, tmp_path / "run", "iterations=1")
    fork, resume = f"fork={parent}", f"resume={parent}"
    for words, says in {
        ("checkpoint=best",): "says which checkpoint resume=RUN or fork=RUN begins with",
        (resume, "checkpoint=lst"): "takes last, best or an iteration; got 'lst'. Did you mean",
        (resume, "iterations=2", "checkpoint=7"): "has no checkpoint of iteration 7; it has 1",
        (resume, "iterations=2", "checkpoint.keep=0"): "checkpoint.keep must be at least 1",
        (fork, "checkpoint=best"): "none of 1 was validated by val/mean/avg@k",
        (fork, resume): "give one of them",
        (fork, "model.path=elsewhere"): "'model.path' cannot be given with fork=RUN",
        (fork, "experiment=paper_7b_grpo"): "experiment=… is for new runs",
        (fork, "updat.lr=1"): "Did you mean 'update.lr'?",
        (fork, "strategy=[clip_cow]"): "Did you mean 'clip_cov'?",
        (fork, f"run_dir={parent}"): "exists already",
        ("fork=/nowhere",): "config.yaml is missing",
        ("checkpoint.best=rollout/reward",): "takes a metric of the validation, val/…; got 'rollout/reward'",
        ("checkpoint.keep_every=0",): "checkpoint.keep_every must be at least 1",
    }.items():
        assert says in refused(capsys, "train", *words), words
    unknown = [*base, f"run_dir={tmp_path / 'unknown'}", "checkpoint.best=val/digits/avg@3"]
    assert "Did you mean 'val/digits/avg@2'?" in refused(capsys, "train", *unknown)


def test_the_policy_is_exported_in_its_own_type(base: list[str], tiny_model: Path, tmp_path: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    shutil.copytree(tiny_model, tmp_path / "half")
    half.save_pretrained(tmp_path / "half")
    words = [word for word in base if not word.startswith("model.path=")]
    run_dir = run([*words, f"model.path={tmp_path / 'half'}"], tmp_path / "run", "iterations=1")
    assert main(["export", str(run_dir), str(tmp_path / "out"), "checkpoint=1"]) == 0
    for folder in (run_dir / "policy", tmp_path / "out"):
        policy = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        assert policy.dtype == torch.bfloat16 and policy.config.architectures == ["Qwen2ForCausalLM"]
        trained = checkpoint_tensors(run_dir)
        named = policy.named_parameters()
        assert all(torch.equal(p, trained[f"model.lm.{name}"].bfloat16()) for name, p in named)
