"""A trained policy, what it drew, and the cells of the conformance matrix that are held against them.

A cell is a strategy under an objective in a precision.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.schema import PRECISIONS, Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.envs.safe_calls import make
from ecrl.metrics import MetricsRecorder
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.rollout.batching import build_batch
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.module import PolicyModule
from ecrl.training.warmup import make_base
from tests.support.conformance import (
    ROWS,
    Row,
    autocast,
    gradient,
    make_module,
    node,
    perturb,
    prepared,
    with_mismatch,
)
from tests.support.marks import slow_unless
from tests.support.tiny import TINY

OBJECTIVES = options("objective")
#: One of each kind of surrogate, and the one with columns of its own.
KINDS = (
    "grpo", "gspo", "cispo", "rloo", "prime", "sapo", "gmpo", "dppo", "dppo_kl", "aspo", "ce_gppo",
)  # fmt: skip
#: Those that differ from one of these in numbers only: advantages, bounds, the weights of a mean.
VARIANTS = [name for name in OBJECTIVES if name not in KINDS]
#: Every strategy under each kind of objective and under one variant, so that each variant meets some.
PAIRS = [
    (row, objective)
    for number, row in enumerate(ROWS)
    for objective in (*KINDS, VARIANTS[number % len(VARIANTS)])
]


def is_sampled(row: Row, objective: str) -> bool:
    """Whether `make test-all` takes a pair: two kinds of objective and a variant a strategy, in turn."""
    number = ROWS.index(row)
    kinds = {KINDS[(number + shift) % len(KINDS)] for shift in (0, 4)}
    return objective in {*kinds, VARIANTS[number % len(VARIANTS)]}


def is_first(row: Row, objective: str) -> bool:
    """Whether a pair is one of fewer: one kind of objective a strategy, in turn."""
    return objective == KINDS[ROWS.index(row) % len(KINDS)]


#: Drawn at 1 and scored at ½: a sure policy that is nevertheless seen to do unlikely things.
TEMPERATURE = 0.5
#: How many completions of each problem are kept; the prompts have 8, 118, 24, 119, 19 and 78 tokens.
KEPT = {14: 5, 9: 5, 4: 3, 16: 4, 11: 2, 6: 1}
#: Budgets of a micro-batch and of a row, in tokens; the longest sequence has 160.
WHOLE, PACKED, PADDED = (10**6, 256), (300, 256), (600, 0)

SETTINGS = [
    *TINY,
    "env=tests.support.tasks:test/Count-v0",
    "model.hidden_size=32",
    "model.layers=2",
    "model.heads=2",
    "warmup.steps=80",
    "warmup.batch=16",
    "warmup.lr=1e-2",
    "warmup.wrong=0.3",
    "rollout.max_new_tokens=40",
    f"rollout.temperature={TEMPERATURE}",
]


@cache
def composed(objective: str) -> Config:
    """The configuration under an objective; to be copied."""
    return build_config([*SETTINGS, f"objective={objective}"])


@dataclass(frozen=True)
class Cell:
    """A strategy under an objective in a precision."""

    row: Row
    objective: str
    precision: str

    def __str__(self) -> str:
        return f"{self.row.name}-{self.objective}-{self.precision.partition('-')[0]}"


def _is_quick(cell: Cell) -> bool:
    """Every strategy once, with every kind of surrogate; some in bf16, which is slow on a CPU."""
    number = ROWS.index(cell.row)
    return cell.objective == KINDS[number % len(KINDS)] and cell.precision == PRECISIONS[number % 8 == 1]


def _is_sampled(cell: Cell) -> bool:
    """The sampled pairs in float32, and the first of each strategy in bf16 too."""
    first = is_first(cell.row, cell.objective)
    return is_sampled(cell.row, cell.objective) and (first or cell.precision == PRECISIONS[0])


CELLS = slow_unless(
    _is_quick, [Cell(*pair, precision) for pair, precision in product(PAIRS, PRECISIONS)], _is_sampled
)


class Trained:
    """A policy that knows its task, and what it drew: prompts of 5 to 120 tokens, completions of 1 to 40.

    Args:
        path: where the policy is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_base(composed("grpo"), path)
        self.trajectories = self._draw()
        self._batches: dict[str, RolloutBatch] = {}

    def _draw(self) -> list[Trajectory]:
        """Groups of unequal size, some completions twice, and a problem that is posed twice."""
        config, tokenizer = composed("grpo"), load_tokenizer(str(self.path))
        engine = HFEngine(load_policy(str(self.path), tokenizer), ProcessGroup())
        collector = Collector(
            lambda split: make(config.env.id, split, {}), engine, Chat(tokenizer), 0, ProcessGroup()
        )
        sampling = Sampling(1.0, 1.0, config.rollout.max_new_tokens)
        drawn = collector.collect("train", list(KEPT), max(KEPT.values()), sampling, 0, MetricsRecorder())
        kept = [t for t in drawn if t.sample_index < KEPT[t.problem_id]]
        twice = [replace(t, sample_index=100) for t in kept if t.sample_index == 1]
        again = [replace(t, problem_id=100) for t in kept if t.problem_id == 4]
        return kept + twice + again

    def config(self, objective: str, precision: str) -> Config:
        """A configuration of its own."""
        config = deepcopy(composed(objective))
        config.model.path, config.trainer.precision = str(self.path), precision
        return config

    def batch(self, precision: str) -> RolloutBatch:
        """The rollout with the log-probs of the policy that drew it, the engine off by noise."""
        if precision not in self._batches:
            module = make_module(self.config("grpo", precision), [])
            batch = replace(build_batch(self.trajectories, iteration=0), temperature=TEMPERATURE)
            with autocast(module):
                logprobs, entropy = module.scorer.score(batch)
            batch = replace(batch, old_logprobs=logprobs, old_entropy=entropy)
            self._batches[precision] = with_mismatch(batch, torch.Generator().manual_seed(0))
        return self._batches[precision]


class Bench:
    """A cell with the trained policy, one update after it drew the rollout.

    Args:
        cell: what is tested.
        trained: the policy and its rollout.
    """

    def __init__(self, cell: Cell, trained: Trained) -> None:
        self.row, self.objective, self.precision = cell.row, cell.objective, cell.precision
        self._trained = trained

    def module(self, nodes: dict[str, Any], moved: bool = True) -> PolicyModule:
        """A policy with strategies; ``moved`` away from the one that drew the rollout."""
        config = self._trained.config(self.objective, self.precision)
        config.strategy = nodes
        module = make_module(config, build_strategies(nodes))
        if moved:
            perturb(module, seed=2, size=0.05)
        return module

    def batch(self, module: PolicyModule) -> RolloutBatch:
        """The rollout as one minibatch, after strategies and objective have seen it."""
        return prepared(module, self._trained.batch(self.precision), self._trained.trajectories)

    @cached_property
    def plain(self) -> tuple[PolicyModule, RolloutBatch]:
        """A module without strategies, and its minibatch."""
        module = self.module({})
        return module, self.batch(module)

    @cached_property
    def active(self) -> tuple[PolicyModule, RolloutBatch]:
        """A module with the strategy at work, and its minibatch."""
        module = self.module(node(self.row, self.row.active))
        return module, self.batch(module)

    @cached_property
    def unmoved(self) -> tuple[PolicyModule, RolloutBatch]:
        """The same where no update came between."""
        module = self.module(node(self.row, self.row.active), moved=False)
        return module, self.batch(module)

    @cached_property
    def outcome(self) -> tuple[float, Tensor, LossPlan]:
        """Loss, gradient and plan of the strategy at work."""
        return update(*self.active)

    @cached_property
    def plan(self) -> LossPlan:
        """The plan of the strategy at work, over tokens as the current policy scores them."""
        module, batch = self.active
        _, _, plan = self.outcome
        with autocast(module):
            logprobs, entropy = module.scorer.score(batch)
        return replace(plan, tokens=replace(plan.tokens, logprobs=logprobs, entropy=entropy))


def update(
    module: PolicyModule, batch: RolloutBatch, budget: tuple[int, int] = WHOLE
) -> tuple[float, Tensor, LossPlan]:
    """Loss, gradient and plan of a minibatch in micro-batches of a budget."""
    module.config.update.max_tokens, module.config.update.row_tokens = budget
    return gradient(module, batch)
