"""The budget drives every knob of every strategy: moved on the way, it acts as if it had been configured."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import make_loss_plan
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS
from ecrl.algorithm.strategy import PenaltyMixin, Strategy
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.callbacks import EntropyBudget
from ecrl.callbacks.entropy_budget import _numbers
from ecrl.callbacks.entropy_ratio_clip import OLD_ENTROPY
from ecrl.callbacks.lp_reg import PROXY
from ecrl.callbacks.rl_zvp import UNANIMOUS
from ecrl.callbacks.ucas import CERTAINTY, LOGIT
from ecrl.config.compose import build_config
from ecrl.config.schema import Config
from ecrl.metrics import MetricsRecorder
from ecrl.training.observer import RolloutObserver
from tests.support.conformance import ROWS, Row, node
from tests.support.random_tokens import random_tokens


def knobs() -> list[Any]:
    """Each row with each of its numeric knobs."""
    cases = []
    for row in (row for row in ROWS if not row.beside):
        (strategy,) = build_strategies(node(row, row.active))
        finite = (k for k in _numbers(strategy) if math.isfinite(getattr(strategy, k)))
        cases += [pytest.param(row, knob, id=f"{row.name}.{knob}") for knob in finite]
    return cases


def other_value(row: Row, knob: str, value: float) -> float:
    """A value near the configured one that the constructor takes too."""
    for candidate in (1.5 * value, 0.9 * value, value + 0.1, value - 0.1):
        if candidate != value:
            try:
                build_strategies(node(row, row.active | {knob: candidate}))
            except Exception:  # whatever way of refusing it: the next candidate
                continue
            return candidate
    raise AssertionError(f"{row.name}.{knob}={value} has no neighbour.")


def tokens() -> TokenBatch:
    drawn = random_tokens(0).tokens
    unanimous = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)[drawn.group_ids]
    columns = {
        REFERENCE_LOGPROBS: drawn.old_logprobs - 0.1,
        UNANIMOUS: unanimous,
        OLD_ENTROPY: drawn.entropy * 0.97,
        PROXY: drawn.logprobs + 0.1,
        CERTAINTY: drawn.advantages - 0.2,
        LOGIT: drawn.logprobs.exp(),
    }
    return replace(drawn, columns=columns)


def effect(strategy: Strategy, module: Any) -> list[Tensor | float]:
    """All that a strategy does with one rollout."""
    if isinstance(strategy, RolloutObserver):
        strategy.on_rollout(module, [])
    plan = make_loss_plan(tokens(), Objective(), [strategy])
    parts = [plan.tokens.advantages, plan.tokens.low, plan.tokens.high, plan.weights]
    if isinstance(strategy, PenaltyMixin):
        parts += [strategy.penalty_coefficients(plan.tokens), strategy.penalty(plan.tokens)]
    return [*parts, module.temperature]


def module_of(strategies: list[Strategy], config: Config, entropy: float) -> Any:
    return SimpleNamespace(
        strategies=strategies, recorder=MetricsRecorder(), iteration=0, policy_entropy=entropy,
        temperature=1.0, config=config,
    )  # fmt: skip


@pytest.mark.parametrize(("row", "knob"), knobs())
def test_a_moved_knob_acts_as_a_configured_one(row: Row, knob: str) -> None:
    config = build_config(["strategy=[]"])
    config.strategy = node(row, row.active)
    (strategy,) = build_strategies(config.strategy)
    value = float(getattr(strategy, knob))
    wanted = other_value(row, knob, value)
    config.strategy[row.name][knob] = value
    low, high = sorted([value, wanted])
    budget = EntropyBudget(
        knob=f"{row.name}.{knob}", minimum=low, maximum=high, target=1.0, proportional=1e9, integral=0.0
    )
    budget.name = "budget"
    budget.check(config, [strategy])  # it takes the knob
    short = 0.9 if wanted == high else 1.1
    budget.on_rollout(module_of([strategy], config, short), [])
    assert getattr(strategy, knob) == pytest.approx(wanted)
    setattr(strategy, knob, wanted)

    (configured,) = build_strategies(node(row, row.active | {knob: wanted}))
    got = effect(strategy, module_of([strategy], config, 0.7))
    expected = effect(configured, module_of([configured], config, 0.7))
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))
