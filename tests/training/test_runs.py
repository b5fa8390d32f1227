"""Whole runs: exact resume, signals, failures, what a run directory holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ecrl.cli import main
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.errors import NonFiniteError, UsageError
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.checkpoint import StopRequest
from ecrl.training.module import PolicyModule
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tasks import DigitsEnv
from tests.support.tiny import TINY

STACK = ["strategy=[kl_cov,adaptive_entropy]", "strategy.kl_cov.fraction=0.1"]
PROMISED = """policy/entropy policy/ratio policy/clip_low policy/clip_high policy/grad_norm
    policy/kl_behaviour
    cov/mean cov/q99 cov/top_2% rollout/reward rollout/length rollout/truncated rollout/zero_variance
    val/digits/avg@2 val/digits/pass@2 val/digits/maj@2 val/digits/greedy throughput/tokens_per_second
    time/generate time/score time/update time/verify strategy/kl_cov/fraction
    strategy/adaptive_entropy/coefficient"""
TARGET = ["strategy.adaptive_entropy.target=9.0", "eval.every=2", "eval.problems=4", "eval.k=2"]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", *STACK, *TARGET]


def test_resume_is_exact(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=5")
    parts = run(base, tmp_path / "parts", "iterations=2")
    for total in (3, 5):
        train(resumed_config([f"resume={parts}", f"iterations={total}"]), silent)
    assert [row["iteration"] for row in history(whole)] == [0, 1, 2, 3, 4, 5]
    assert_same_run(whole, parts)


def test_history_behind_the_checkpoint_is_dropped_on_resume(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=4")
    parts = run(base, tmp_path / "parts", "iterations=2")
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 3, "policy/entropy": 1.0}\n{"iteration": 4, "poli')  # died while writing
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_signals_leave_a_checkpoint_that_resumes_exactly(
    number: signal.Signals, base: list[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "stopped"
    command = [sys.executable, "-m", "ecrl", "train", *base, f"run_dir={run_dir}", "iterations=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert f"resume={run_dir}" in output
    done = history(run_dir)[-1]["iteration"]
    train(resumed_config([f"resume={run_dir}", f"iterations={done + 2}"]), silent)
    whole = run(base, tmp_path / "whole", f"iterations={done + 2}")
    assert_same_run(whole, run_dir)


def test_a_second_signal_stops_at_once_and_says_so(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def signal_twice(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PolicyModule, "training_step", signal_twice)
    assert main(["train", *base, f"run_dir={tmp_path / 'run'}"]) == 128 + signal.SIGTERM
    captured = capsys.readouterr()
    assert captured.err == "ecrl: interrupted by SIGTERM.\n"
    assert captured.out.count("SIGTERM: finishing this iteration") == 1


def test_a_run_that_fails_before_anything_is_there_leaves_no_folder(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise UsageError("a fault")

    monkeypatch.setattr(PolicyModule, "training_step", fails)
    for validates in (False, True):  # the latter leaves a row, which is kept
        with pytest.raises(UsageError, match="a fault"):
            train(tiny(f"eval.every={int(validates)}", "eval.problems=2", "eval.k=2"), silent)
        assert (tmp_path / "run").exists() == validates
    with pytest.raises(UsageError, match=r"choose another; it holds no checkpoint to resume"):
        train(tiny(), silent)


def test_the_validation_environment_is_tried_first(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("env=tests.training.test_runs:test/TrainOnly-v0", "eval.every=1")
    with pytest.raises(UsageError, match="has no val"):
        train(config, silent)
    assert not (tmp_path / "run").exists()
    preflight(tiny("env=tests.training.test_runs:test/TrainOnly-v0", "eval.every=0"))


class TrainOnly(DigitsEnv):
    """An environment without validation problems."""

    def __init__(self, *, split: Any = "train") -> None:
        if split == "val":
            raise UsageError("has no val")
        super().__init__(split=split)


gym.register("test/TrainOnly-v0", entry_point=TrainOnly)


def test_kill_leaves_the_last_checkpoint_whole(base: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "killed"
    command = [sys.executable, "-m", "ecrl", "train", *base, f"run_dir={run_dir}", "iterations=500"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "checkpoint.every=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 120
    while not (run_dir / "checkpoints" / "last").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=60)
    total = len(history(run_dir)) + 3
    train(resumed_config([f"resume={run_dir}", f"iterations={total}"]), silent)
    assert_same_run(run(base, tmp_path / "whole", f"iterations={total}"), run_dir)


def test_a_run_directory_holds_what_it_promises(base: list[str], tmp_path: Path) -> None:
    run_dir = run(base, tmp_path / "run", "iterations=2")
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


def test_same_seed_same_run_other_seed_other_run(base: list[str], tmp_path: Path) -> None:
    one = run(base, tmp_path / "one", "iterations=2")
    same = run(base, tmp_path / "same", "iterations=2", "update.max_tokens=16384")
    other = run(base, tmp_path / "other", "iterations=2", "seed=1")
    assert_same_run(one, same)
    assert history(one) != history(other)


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


def test_non_finite_stops_with_a_checkpoint(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("iterations=3")
    config.objective["surrogate"] = {"_target_": "tests.training.test_runs.explosive", "_partial_": True}
    with pytest.raises(NonFiniteError, match=r"The loss became nan in iteration 1, optimizer step 1"):
        train(config, silent)
    state = checkpoint_tensors(tmp_path / "run", "nonfinite")
    assert state and all(torch.isfinite(tensor).all() for tensor in state.values())


def explosive(tokens: Any) -> torch.Tensor:
    """A surrogate that is NaN."""
    loss: torch.Tensor = tokens.logprobs * float("nan")
    return loss


def test_resume_refuses_what_would_be_another_run(base: list[str], tmp_path: Path) -> None:
    run_dir = run(base, tmp_path / "run", "iterations=1")
    with pytest.raises(UsageError, match=r"'update\.lr' cannot change on resume"):
        resumed_config([f"resume={run_dir}", "update.lr=1"])
    with pytest.raises(UsageError, match="asks for no more"):
        train(resumed_config([f"resume={run_dir}"]), silent)
    shard = run_dir / "checkpoints" / "last" / "__0_0.distcp"
    content = shard.read_bytes()
    flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    for damaged, message in [
        (content[:1000], "has 1000 bytes instead of"),
        (flipped, "content of .* changed"),
    ]:
        shard.write_bytes(damaged)
        with pytest.raises(UsageError, match=f"cannot be read as a checkpoint: .*{message}"):
            train(resumed_config([f"resume={run_dir}", "iterations=9"]), silent)
    shard.unlink()
    with pytest.raises(UsageError, match="is missing"):
        train(resumed_config([f"resume={run_dir}", "iterations=9"]), silent)
    with pytest.raises(UsageError, match=r"config\.yaml is missing"):
        resumed_config([f"resume={tmp_path / 'nowhere'}"])
    assert len(history(run_dir)) == 2  # row 0 and row 1: nothing was lost


def test_a_signal_that_all_agreed_on_may_reach_a_process_later() -> None:
    class Peers(ProcessGroup):
        def max(self, value: int) -> int:
            return max(value, signal.SIGTERM)

    stop = StopRequest()
    assert stop.agreed(Peers()) and stop.signal is signal.SIGTERM
    stop.on_signal(signal.SIGTERM, None)  # the first that it gets itself
    with pytest.raises(KeyboardInterrupt):
        stop.on_signal(signal.SIGTERM, None)


def test_a_signal_that_comes_while_all_agree_is_not_lost() -> None:
    stop = StopRequest()

    class Peers(ProcessGroup):
        def max(self, value: int) -> int:
            if not value:
                stop.on_signal(signal.SIGTERM, None)
            return value

    assert not stop.agreed(Peers())
    assert stop.agreed(Peers()) and stop.signal is signal.SIGTERM
