"""TRL's trainer with strategies: the real package, a small model, several micro-batches a step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ecrl.algorithm.strategy import Strategy
from ecrl.callbacks.clip_cov import ClipCov
from ecrl.callbacks.entropy_bonus import EntropyBonus
from ecrl.callbacks.high_entropy_tokens import HighEntropyTokens
from ecrl.callbacks.kl_cov import KLCov
from ecrl.errors import UsageError
from ecrl.integrations.masked import token_batch
from tests.support.paths import ROOT

pytest.importorskip("trl", reason="TRL is not installed")

from tests.support.trl_runs import STEPS, make_trainer


@pytest.fixture
def trainer(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    return partial(make_trainer, tiny_model, tmp_path / "out")


def trained(trainer: Any) -> list[torch.Tensor]:
    """Train at once, because making a trainer seeds all that it draws; return the weights."""
    trainer.train()
    return [parameter.detach() for parameter in trainer.model.parameters()]


def test_without_strategies_it_is_trls_own_loss(trainer: Callable[..., Any]) -> None:
    theirs, ours = (trained(trainer(plain=plain, steps_per_generation=2)) for plain in (True, False))
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


def test_kl_cov_is_planned_over_the_whole_step(trainer: Callable[..., Any]) -> None:
    """Each micro-batch's loss is computed anew, by the formula, from what the passes of the step gave."""
    ours, fraction = trainer(KLCov(fraction=0.1, coefficient=2.0)), 0.1
    passes: list[tuple[Any, ...]] = []
    found: list[float] = []
    compute, score = ours._compute_loss, ours._tokens

    def tokens(model: Any, inputs: Any) -> Any:
        scored = score(model, inputs)
        passes.append((scored.logprobs.detach(), scored.old_logprobs, scored.advantages))
        return scored

    def loss(model: Any, inputs: Any) -> Any:
        value = compute(model, inputs)
        found.append(float(value.detach()))
        return value

    ours._tokens, ours._compute_loss = tokens, loss
    ours.train()
    assert len(found) == 2 * STEPS and len(passes) == 3 * STEPS  # the second micro-batch is passed over twice
    by_hand, moved = [], 0.0
    for step in range(STEPS):
        first, second, again = passes[3 * step : 3 * step + 3]
        torch.testing.assert_close(second[0], again[0])
        logprobs, old, advantages = (torch.cat(parts) for parts in zip(first, second, strict=True))
        covariance = (logprobs - logprobs.mean()) * (advantages - advantages.mean())
        penalty = torch.zeros_like(logprobs)
        if float((logprobs - old).abs().max()) > 1e-4:
            penalty[covariance.topk(max(int(fraction * len(logprobs)), 1)).indices] = 2.0
        shift = logprobs - old
        moved = max(moved, float(shift.abs().max()))
        terms = (-advantages * shift.exp() + penalty * shift.abs()) / len(logprobs)
        by_hand += [float(terms[: len(first[0])].sum()), float(terms[len(first[0]) :].sum())]
    assert moved > 1e-3  # there are steps in which the policy is not the rollout's
    assert found == pytest.approx(by_hand, abs=1e-6)
    names = {name for row in ours.state.log_history for name in row}
    assert {"strategy/KLCov/changed_fraction", "strategy/KLCov/coefficient", "entropy"} <= names


@pytest.mark.parametrize(
    "strategy",
    [
        ClipCov(fraction=0.1, low=0.0, high=None),
        EntropyBonus(coefficient=0.1),
        HighEntropyTokens(fraction=0.3),
    ],
)
def test_other_strategies_train(strategy: Strategy, trainer: Callable[..., Any]) -> None:
    plain, controlled = trained(trainer()), trained(trainer(strategy))
    assert max(float((one - other).abs().max()) for one, other in zip(plain, controlled, strict=True)) > 1e-5


def test_an_evaluation_plans_over_its_own_batch(trainer: Callable[..., Any]) -> None:
    ours = trainer(KLCov(fraction=0.1), per_device_eval_batch_size=8)
    found = ours.evaluate(ours.train_dataset)
    assert found["eval_loss"] == found["eval_loss"] and "eval_entropy" in found


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 0.1}, "beta=0.1 changes TRL's own loss"),
        ({"loss_type": "dr_grpo"}, "loss_type='dr_grpo' changes TRL's own loss"),
        ({"top_entropy_quantile": 0.2}, "top_entropy_quantile=0.2 changes"),
        (
            {"steps_per_generation": 3},
            "steps_per_generation=3 is no multiple of gradient_accumulation_steps=2",
        ),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(
    settings: dict[str, Any], says: str, trainer: Callable[..., Any]
) -> None:
    with pytest.raises(UsageError, match=says):
        trainer(KLCov(), **settings)


def test_tokens_of_tools_do_not_train() -> None:
    mask = torch.tensor([[1, 1, 1]]) * torch.tensor([[1, 0, 1]])
    tokens = token_batch(mask, torch.zeros(1, 3), torch.zeros(1, 3), torch.ones(1))
    assert tokens.positions.tolist() == [0, 2]


@pytest.mark.slow
def test_two_processes_share_one_plan(tiny_model: Path, tmp_path: Path) -> None:
    """Their scales add up to 1 over an optimizer step, and the share of tokens is one of both together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["--module", "tests.support.trl_runs", str(tiny_model), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(steps) for steps in ranks] == [STEPS, STEPS]
    for one, other in zip(*ranks, strict=True):
        count = one["tokens"] + other["tokens"]
        assert one["scale"] + other["scale"] == pytest.approx(1)
        assert one["chosen"] + other["chosen"] in (0, max(int(0.1 * count), 1))
        assert one["share"] == other["share"]
    assert any(one["chosen"] and other["chosen"] for one, other in zip(*ranks, strict=True))
