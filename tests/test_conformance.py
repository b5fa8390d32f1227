"""What every strategy owes: one row each, all checks inherited.

Neutral is bit-identical to none; choices, loss and gradient do not depend on the partition; the state
survives a checkpoint; gradients are finite; it composes with every other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.config.compose import build, build_config, options
from ecrl.config.schema import Config
from ecrl.engines.base import Completion
from ecrl.errors import UsageError
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.policy.weights import whole, write_whole
from ecrl.rollout.batching import build_batch
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.training.module import PolicyModule
from ecrl.training.observer import PlanObserver
from ecrl.training.run import connect, make_trainer, train
from tests.conftest import TINY
from tests.helpers import checkpoint_tensors


@dataclass(frozen=True)
class Row:
    """A strategy under test: settings that do something to a tiny batch, and settings that do nothing.

    One that only looks is neutral at any setting. One that moves another's knob stands beside it, ``beside``
    with settings that do nothing.
    """

    name: str
    active: dict[str, Any]
    neutral: dict[str, Any]
    target: str = ""
    looks: bool = False
    beside: dict[str, Any] = field(default_factory=dict)

    @property
    def planned(self) -> set[str]:
        """Names under which it shows in the plan."""
        return set() if self.looks else set(self.beside) or {self.name}


ROWS = [
    Row("clip_cov", {"fraction": 0.1, "low": 0.0, "high": 100.0}, {"fraction": 0.0}),
    Row("kl_cov", {"fraction": 0.2}, {"coefficient": 0.0, "keep_clip": True}),
    Row("clip_higher", {"high": 0.5}, {"low": None, "high": None}),
    Row("entropy_bonus", {"coefficient": 0.1}, {"coefficient": 0.0}),
    Row("reference_kl", {"coefficient": 0.5}, {"coefficient": 0.0}),
    Row("adaptive_entropy", {"target": 50.0, "delta": 0.1}, {"delta": 0.0, "initial": 0.0}),
    Row("high_entropy_tokens", {"fraction": 0.3}, {"fraction": 1.0}),
    Row("entropy_advantage", {"alpha": 0.4}, {"alpha": 0.0}),
    Row("importance_correction", {"mode": "mask", "floor": 0.9, "cap": 1.1}, {}),
    Row("entropy_dynamics", {"problems": 3, "tokens": 9}, {"problems": 3, "tokens": 9}, looks=True),
    Row(
        "entropy_budget",
        {"target": 50.0, "maximum": 0.1},
        {"proportional": 0.0, "integral": 0.0},
        beside={"entropy_bonus": {"_target_": "ecrl.callbacks.EntropyBonus", "coefficient": 0.0}},
    ),
    Row("drop_late", {"position": 3}, {"position": 10**6}, "tests.outside.DropLate"),
]
EVERY = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def node(row: Row, settings: dict[str, Any]) -> dict[str, Any]:
    names = "".join(part.capitalize() for part in row.name.split("_"))
    names = {"KlCov": "KLCov", "ReferenceKl": "ReferenceKL"}.get(names, names)
    return row.beside | {row.name: {"_target_": row.target or f"ecrl.callbacks.{names}", **settings}}


def test_every_shipped_strategy_has_a_row() -> None:
    built = {
        name for option in options("strategy") for name in build_config([f"strategy=[{option}]"]).strategy
    }
    assert built == {row.name for row in ROWS if not row.target}


class Spy(L.Callback, PlanObserver):
    """Keeps the last plan."""

    plan: LossPlan

    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        self.plan = plan


def make_module(config: Config, strategies: Sequence[Strategy]) -> PolicyModule:
    """A policy attached to a trainer, as in a run but without its loop."""
    path = str(config.model.path)
    trainer = make_trainer(config)
    process_group = connect(trainer, config)
    module = PolicyModule(
        config, path, load_tokenizer(path), build(config.objective), strategies, process_group
    )
    trainer.callbacks = [*strategies, Spy()]  # type: ignore[attr-defined]
    trainer.strategy.connect(module)
    trainer.strategy.setup_environment()
    module.trainer = trainer
    module.configure_model()
    # Away from the initial policy, or a reference KL would have no gradient.
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.model.parameters():
            noise = 0.02 * torch.randn(parameter.shape, generator=random)
            write_whole(parameter, whole(parameter) + noise.to(parameter.device))
    for strategy in strategies:
        strategy.setup(trainer, module, "fit")
    return module


def make_batch(module: PolicyModule, seed: int = 0) -> RolloutBatch:
    """Six groups of four completions that share prompts, off-policy by noise, the engine off by less."""
    random = torch.Generator().manual_seed(seed)
    trajectories = []
    for problem in range(6):
        prompt = torch.randint(3, 90, (5 + problem,), generator=random).tolist()
        for copy in range(4):
            count = int(torch.randint(1, 9, (1,), generator=random))
            ids = torch.randint(3, 90, (count,), generator=random).tolist()
            completion = Completion(ids, [0.0] * count, [0.0] * count, "stop", 0)
            turn = Turn([], completion)
            reward = float(torch.rand(1, generator=random))
            trajectories.append(
                Trajectory(prompt, [turn], problem, copy, reward, True, False, {}, None, "", "")
            )
    batch = build_batch(trajectories, module.objective, iteration=0)
    batch = replace(batch, temperature=module.temperature)
    logprobs, entropy = module.score(module.model, batch)
    noise = 0.3 * torch.randn(logprobs.shape, generator=random)
    mismatch = 0.1 * torch.randn(logprobs.shape, generator=random)
    batch = replace(
        batch,
        old_logprobs=logprobs + noise,
        engine_logprobs=logprobs + noise + mismatch,
        old_entropy=entropy,
    )
    module.rollout_entropy = float(entropy.mean())
    columns: dict[str, Tensor] = {}
    for strategy in module.strategies:
        if hasattr(strategy, "on_rollout"):
            strategy.on_rollout(module, trajectories)
        columns |= strategy.extra_columns(batch)
    return replace(batch, columns=columns)


def gradient(module: PolicyModule, batch: RolloutBatch) -> tuple[float, Tensor, LossPlan]:
    """Loss, gradient and plan of one optimizer minibatch."""
    module.zero_grad()
    loss = module.accumulate(batch)
    (spy,) = [c for c in module.trainer.callbacks if isinstance(c, Spy)]  # type: ignore[attr-defined]
    parts = [whole(p.grad).flatten() for p in module.model.parameters() if p.grad is not None]
    return loss, torch.cat(parts), spy.plan


@EVERY
def test_partition_does_not_matter(row: Row, tiny: Callable[..., Config]) -> None:
    config = tiny()
    module = make_module(config, build_strategies(node(row, row.active)))
    batch = make_batch(module)
    loss, expected, plan = gradient(module, batch)
    assert torch.isfinite(expected).all() and expected.norm() > 0
    splits = [(10**6, 0), (64, 256), (64, 0), (20, 0), (30, 30)]
    for max_tokens, row_tokens in splits:
        config.update.max_tokens, config.update.row_tokens = max_tokens, row_tokens
        other_loss, other, other_plan = gradient(module, batch)
        assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-7)
        assert (other - expected).norm() <= 1e-5 * expected.norm()
        assert torch.equal(other_plan.weights == 0, plan.weights == 0)
        assert other_plan.coefficients.keys() == plan.coefficients.keys()
        for name, coefficients in plan.coefficients.items():
            assert torch.equal(other_plan.coefficients[name] != 0, coefficients != 0)


@EVERY
def test_order_does_not_matter(row: Row, tiny: Callable[..., Config]) -> None:
    module = make_module(tiny(), build_strategies(node(row, row.active)))
    batch = make_batch(module)
    loss, expected, plan = gradient(module, batch)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(3))
    other_loss, other, other_plan = gradient(module, batch.select(order))
    assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-7)
    assert (other - expected).norm() <= 1e-5 * expected.norm()
    assert torch.equal(other_plan.weights == 0, (plan.weights == 0)[batch.token_index(order)])


@EVERY
def test_active_settings_do_something(row: Row, tiny: Callable[..., Config]) -> None:
    config = tiny()
    plain = make_module(config, [])
    module = make_module(config, build_strategies(node(row, row.active)))
    batch = make_batch(module)
    _, with_strategy, plan = gradient(module, batch)
    _, without, _ = gradient(plain, batch)
    if row.looks:
        assert torch.equal(with_strategy, without) and row.name not in plan.changed_fraction
        return
    assert (with_strategy - without).norm() > 1e-3 * without.norm()
    assert all(0 < plan.changed_fraction[name] <= 1 for name in row.planned)


@pytest.fixture(scope="module")
def plain_weights(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights after a tiny run without any strategy."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    config = build_config([*TINY, f"model.path={tiny_model}", f"run_dir={run_dir}", "iterations=2"])
    return run_weights(config)


def run_weights(config: Config) -> dict[str, Tensor]:
    outcome = train(config, say=lambda line: None)
    tensors = checkpoint_tensors(outcome.run_dir)
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.lm.")}


@EVERY
def test_neutral_is_identity(
    row: Row, tiny: Callable[..., Config], plain_weights: dict[str, Tensor], tiny_model: Path
) -> None:
    config = tiny("iterations=2")
    config.strategy = node(row, row.neutral)
    weights = run_weights(config)
    initial = load_policy(str(tiny_model), load_tokenizer(str(tiny_model))).state_dict(prefix="model.")
    assert weights.keys() == plain_weights.keys()
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)
    assert any(not torch.equal(weights[name], initial[name]) for name in weights)  # it did train


@EVERY
def test_state_survives(row: Row, tiny: Callable[..., Config]) -> None:
    strategy = build_strategies(node(row, row.active))[-1]
    module = make_module(tiny(), [*build_strategies(row.beside), strategy])
    batch = make_batch(module)
    gradient(module, batch)
    again = build_strategies(node(row, row.active))[-1]
    again.load_state_dict(strategy.state_dict())
    assert again.state_dict() == strategy.state_dict()
    assert again.logged_coefficient() == strategy.logged_coefficient()


@EVERY
def test_composes_with_every_other(row: Row, tiny: Callable[..., Config]) -> None:
    config = tiny()
    for other in ROWS:
        if other.name == row.name:
            continue
        config.strategy = node(row, row.active) | node(other, other.active)
        strategies = build_strategies(config.strategy)
        try:
            check_stack(config, strategies)
        except UsageError as refusal:
            assert {row.name, other.name} == {"kl_cov", "clip_higher"}, refusal
            continue
        module = make_module(config, strategies)
        _, result, plan = gradient(module, make_batch(module))
        assert torch.isfinite(result).all()
        assert row.planned | other.planned <= plan.changed_fraction.keys()


def test_order_of_the_stack_is_the_order_of_the_config(tiny: Callable[..., Config]) -> None:
    stack = node(ROWS[2], {"high": 0.5}) | {"narrow": node(ROWS[2], {"high": 0.1})["clip_higher"]}
    for strategies, high in [(stack, 1.1), (dict(reversed(list(stack.items()))), 1.5)]:
        module = make_module(tiny(), build_strategies(strategies))
        _, _, plan = gradient(module, make_batch(module))
        assert plan.tokens.high.unique().tolist() == pytest.approx([high])
