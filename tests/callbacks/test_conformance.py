"""What every strategy owes: one row each, all checks inherited.

Neutral is bit-identical to none; choices, loss and gradient do not depend on the partition; the state
survives a checkpoint; gradients are finite; it composes with every other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.config.compose import build_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.conformance import EVERY, ROWS, Row, gradient, make_batch, make_module, node
from tests.support.marks import slow_unless
from tests.support.paths import ROOT
from tests.support.tiny import TINY


def test_every_shipped_strategy_has_a_row() -> None:
    shipped = {
        str(name) for path in (ROOT / "configs" / "strategy").glob("*.yaml") for name in OmegaConf.load(path)
    }
    assert shipped == {row.name for row in ROWS if not row.target}


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


@pytest.mark.parametrize(
    "row", slow_unless(lambda row: row.name in ("kl_cov", "drop_late"), ROWS), ids=lambda row: row.name
)
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
