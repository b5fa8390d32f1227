"""An auxiliary model trains beside the policy: it learns, resumes, is sharded, and is planned for."""

from __future__ import annotations

import os
import subprocess
import sys
from math import exp, log
from pathlib import Path

import pytest
import torch

from ecrl.algorithm.process_reward import ImplicitProcessReward
from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.estimate.assumptions import Assumptions
from ecrl.estimate.job import Job
from ecrl.estimate.memory import resident
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.paths import ROOT
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import TINY

PRIME = [
    *TINY,
    "objective=prime",
    "objective.auxiliary.prime.lr=3e-3",
    "objective.auxiliary.prime.beta=0.5",
    "objective.filters.min_accuracy=null",
    "objective.filters.max_accuracy=null",
]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*PRIME, f"model.path={tiny_model}"]


def test_losses_and_rewards_by_hand() -> None:
    """β = ½; response 0 has log-ratios 2 and 2, so R = 2; response 1 has −4, so R = −2."""
    task = ImplicitProcessReward(beta=0.5)
    logprobs = torch.tensor([-1.0, -1.0, -5.0], requires_grad=True)
    reference = torch.tensor([-3.0, -3.0, -1.0])
    assert task.rewards(logprobs, reference).tolist() == [1.0, 1.0, -2.0]
    ids, outcomes = torch.tensor([0, 0, 1]), torch.tensor([1.0, 0.5])
    losses = task.losses(logprobs, reference, ids, outcomes)
    # −log σ(2) and −½·log σ(−2) − ½·log σ(2)
    right, wrong = log(1 + exp(-2)), log(1 + exp(2))
    assert losses.tolist() == pytest.approx([right, (right + wrong) / 2])
    losses.sum().backward()
    # dL/dlogπ = β·(σ(R) − o)
    sigmoid = 1 / (1 + exp(-2))
    expected = [0.5 * (sigmoid - 1), 0.5 * (sigmoid - 1), 0.5 * (1 - sigmoid - 0.5)]
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("knobs", [{"beta": 0.0}, {"beta": -1.0}, {"lr": -1.0}, {"grad_clip": float("inf")}])
def test_values_out_of_range_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs))):
        ImplicitProcessReward(**knobs)


def test_its_loss_falls_on_what_one_policy_draws(base: list[str], tmp_path: Path) -> None:
    rows = history(run(base, tmp_path / "run", "iterations=15", "update.lr=0", "rollout.prompts=16"))
    losses = [row["prime/loss"] for row in rows]
    assert losses[0] == pytest.approx(log(2), abs=1e-6) and rows[0]["prime/reward"] == 0.0
    assert sum(losses[-5:]) / 5 < losses[0] - 0.02


@pytest.mark.slow
def test_a_policy_learns_with_it(base: list[str], tmp_path: Path) -> None:
    words = ["iterations=25", "update.lr=5e-3", "rollout.prompts=16", "rollout.group_size=8"]
    rows = history(run(base, tmp_path / "run", *words, "objective.estimator.coefficient=0.1"))
    assert rows[-1]["rollout/reward"] > rows[0]["rollout/reward"] + 0.3


@pytest.mark.slow
def test_the_embedded_task_is_learned_with_the_papers_coefficient(tmp_path: Path) -> None:
    words = ["objective=prime", "objective.auxiliary.prime.lr=1e-4", "strategy=[]", "log.progress=false"]
    validated = ["iterations=20", "eval.every=20", "eval.problems=64", "eval.k=8"]
    rows = history(run([*words, *validated], tmp_path / "run"))
    assert rows[-1]["val/countdown/avg@8"] > rows[0]["val/countdown/avg@8"] + 0.1
    losses = [row["prime/loss"] for row in rows[1:]]
    assert sum(losses[-5:]) / 5 < losses[0]


MORE = (["model.lora.r=2"], ["objective.auxiliary.prime.update_first=true"])


@pytest.mark.parametrize("extra", [[], *(pytest.param(extra, marks=pytest.mark.slow) for extra in MORE)])
def test_it_resumes_bit_for_bit(base: list[str], extra: list[str], tmp_path: Path) -> None:
    whole = run([*base, *extra], tmp_path / "whole", "iterations=4", "checkpoint.every=1")
    parts = run([*base, *extra], tmp_path / "parts", "iterations=2", "checkpoint.every=1")
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)
    tensors = checkpoint_tensors(whole)
    trained = [name for name in tensors if name.startswith("auxiliary_prime.")]
    assert trained and all(torch.isfinite(tensors[name]).all() for name in trained)
    assert any(name.startswith("optimizer_1.") for name in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["fsdp", "ddp"])
def test_two_processes_are_the_same_run(base: list[str], parallel: str, tmp_path: Path) -> None:
    words = ["iterations=3", "checkpoint.every=1", "update.max_tokens=64", "update.lr=1e-4"]
    alone = run(base, tmp_path / "alone", *words)
    spread = ["trainer.accelerator=cpu", "trainer.devices=2", f"trainer.parallel={parallel}"]
    command = [sys.executable, "-m", "ecrl", "train", *base, *words, *spread, f"run_dir={tmp_path / 'both'}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for one, other in zip(history(alone), history(tmp_path / "both"), strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() & {"prime/loss", "prime/reward", "prime/grad_norm", "policy/loss"}:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), name


def test_the_plan_counts_it() -> None:
    plain, prime = (
        resident(Job(build_config([f"objective={name}", "strategy=[]"]), Assumptions()))
        for name in ("grpo", "prime")
    )
    trained = plain["weights"] + plain["gradients"] + plain["optimizer"]
    assert prime["auxiliary models"] == pytest.approx(trained)
    assert "reference weights" in prime
