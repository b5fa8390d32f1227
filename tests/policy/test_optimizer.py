"""The policy's optimizer: by hand against torch's, its state, schedules, exact resume, refusals."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config, ScheduleConfig
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.policy.muon import Muon, orthogonal
from ecrl.policy.optimizer import build_optimizer, schedule, state_bytes
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.cli import refused
from tests.support.marks import slow_unless
from tests.support.runs import history, run, silent
from tests.support.tiny import TINY

SGD = ["update.optimizer._target_=torch.optim.SGD", "update.optimizer.momentum=0.9"]
#: Every optimizer with a schedule, and every schedule with an optimizer.
PAIRS = {
    "adamw-cosine": ["update.optimizer.betas=[0.8,0.95]", "update.schedule={name: cosine, warmup: 2}"],
    "muon-linear": ["update.optimizer=muon", "update.schedule.name=linear", "update.weight_decay=0.1"],
    "sgd-constant": [*SGD, "update.schedule.warmup=5"],
    "muon-lora": ["update.optimizer=muon", "model.lora.r=4", "update.schedule.name=cosine"],
}


def test_muon_is_torchs_muon_for_matrices_and_adamw_for_the_rest(tiny_model: Path) -> None:
    ours = load_policy(str(tiny_model), load_tokenizer(str(tiny_model)))
    theirs = load_policy(str(tiny_model), load_tokenizer(str(tiny_model)))
    named = dict(theirs.lm.model.layers.named_parameters())
    matrices = [p for p in named.values() if p.ndim == 2]
    rest = [p for p in theirs.parameters() if not any(p is m for m in matrices)]
    assert len(matrices) == 14 and len(rest) == 12  # of each layer 7, and 5 vectors; 2 more
    optimizers: list[torch.optim.Optimizer] = [
        Muon(ours, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9)),
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9), fused=True),
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_an_orthogonal_step_has_singular_values_near_1() -> None:
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    for each in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonal(each).float())
        assert values.min() > 0.5 and values.max() < 1.5
    assert not orthogonal(torch.zeros(3, 2)).any()


def test_schedules_by_hand() -> None:
    def rates(name: str, warmup: int) -> list[float]:
        factor = schedule(ScheduleConfig(name, warmup), 6)
        return [round(factor(step), 6) for step in range(6)]

    assert rates("constant", 0) == [1.0] * 6
    assert rates("constant", 4) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates("linear", 2) == [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    assert rates("cosine", 2) == [
        0.0,
        0.5,
        *(round(0.5 + 0.5 * math.cos(math.pi * i / 4), 6) for i in range(4)),
    ]


@pytest.mark.parametrize(
    ("words", "matrix", "other"),
    [
        ([], 8, 8),
        (["update.optimizer.amsgrad=true"], 12, 12),
        (["update.optimizer=muon"], 4, 8),
        (SGD, 4, 4),
        (["update.optimizer._target_=torch.optim.SGD"], 0, 0),
    ],
)
def test_the_state_is_counted(words: list[str], matrix: float, other: float) -> None:
    found = state_bytes(build_config(words).update)
    assert (found.matrix, found.other) == (matrix, other)


@pytest.mark.parametrize(
    "pair", slow_unless(lambda pair: pair in ("adamw-cosine", "muon-linear"), list(PAIRS))
)
def test_resume_is_exact(pair: str, tiny_model: Path, tmp_path: Path) -> None:
    words = [*TINY, *PAIRS[pair], f"model.path={tiny_model}", "iterations=4"]
    whole = run(words, tmp_path / "whole", "checkpoint.every=2", "checkpoint.keep=2")
    parts = tmp_path / "parts"
    shutil.copytree(whole, parts)
    train(resumed_config([f"resume={parts}", "checkpoint=2"]), silent)
    assert history(whole) == history(parts)
    left, right = checkpoint_tensors(whole, "4"), checkpoint_tensors(parts, "4")
    assert left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
    rates = [row["policy/lr"] for row in history(whole)]
    factor = schedule(build_config(PAIRS[pair]).update.schedule, 8)
    assert rates == [1e-3 * factor(step) for step in (1, 3, 5, 7)]  # of each iteration's second step


def test_raising_iterations_stretches_the_schedule(tiny: Callable[..., Config]) -> None:
    words = ["update.schedule.name=linear", "iterations=1"]
    run_dir = train(tiny(*words), silent).run_dir
    train(resumed_config([f"resume={run_dir}", "iterations=2"]), silent)
    assert [row["policy/lr"] for row in history(run_dir)] == pytest.approx([5e-4, 2.5e-4])


def test_muon_learns(tiny_model: Path, tmp_path: Path) -> None:
    words = [*TINY, f"model.path={tiny_model}", "rollout.prompts=16", "rollout.group_size=8", "iterations=25"]
    rows = history(run(words, tmp_path / "run", "update.optimizer=muon", "update.lr=3e-3"))
    assert rows[0]["rollout/reward"] < 0.15 and rows[-1]["rollout/reward"] > 0.5


class Unusual(torch.optim.SGD):
    """Takes the whole model."""

    def __init__(self, model: nn.Module, lr: float = 1.0) -> None:
        super().__init__(model.parameters(), lr=lr)


def test_an_optimizer_of_ones_own(tiny: Callable[..., Config], tiny_model: Path) -> None:
    config = tiny("update.optimizer._target_=tests.policy.test_optimizer.Unusual", "update.lr=0.5")
    model = load_policy(str(tiny_model), load_tokenizer(str(tiny_model)))
    optimizer: Any = build_optimizer(config.update, model)
    assert isinstance(optimizer, Unusual) and optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["update.optimizer=muonn"], "Did you mean 'muon'?"),
        (["update.optimizer=null"], "write update.optimizer=NAME, one of: adamw, adamw_8bit, muon"),
        (["update.optimizer.lr=1"], "update.optimizer.lr is set by update.lr"),
        (["update.optimizer.weight_decay=1"], "update.optimizer.weight_decay is set by update.weight_decay"),
        (["update.optimizer.betass=1"], "Did you mean 'betas'?"),
        (["update.optimizer.betas=[0.9,2]"], "update.optimizer: Invalid beta parameter at index 1: 2"),
        (["update.optimizer.eps=abc"], "update.optimizer.eps must be a number, got 'abc'"),
        (["update.optimizer=muon", "update.optimizer.momentum=2"], "momentum must be in [0, 1), got 2"),
        (["update.optimizer._target_=torch.optim.LBFGS"], "LBFGS takes no plain step"),
        (["update.optimizer._target_=torch.optim.Muon"], "only supports 2D parameters"),
        (["update.optimizer._target_=torch.nn.ReLU"], "unexpected keyword argument 'params'"),
        (["update.optimizer._target_=nowhere.Adam"], "cannot be imported"),
        (["update.schedule.name=lin"], "update.schedule.name takes one of constant, linear, cosine"),
        (["update.schedule.warmup=-1"], "update.schedule.warmup must be at least 0"),
    ],
)
def test_refusals(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, "train", *words)


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_an_8_bit_optimizer_needs_its_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No module named 'torchao'" in refused(capsys, "train", "update.optimizer=adamw_8bit")
