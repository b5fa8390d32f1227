"""Every strategy as a row; a policy module and a batch to hold them against."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import lightning as L
import torch
import yaml
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan
from ecrl.algorithm.process_reward import PROCESS_REWARDS
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS, RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.engines.base import Completion
from ecrl.policy.model import load_tokenizer
from ecrl.policy.weights import full_tensor, write_whole
from ecrl.rollout.batching import build_batch, with_advantages
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.training.module import PolicyModule
from ecrl.training.observer import PlanObserver
from ecrl.training.scoring import Scorer
from ecrl.training.trainer import connect, make_trainer


@dataclass(frozen=True)
class Row:
    """A strategy under test: settings that do something to a tiny batch, and settings that do nothing.

    One that moves another's knob stands beside it, ``beside`` with settings that do nothing.
    """

    name: str
    active: dict[str, Any]
    neutral: dict[str, Any]
    target: str = ""
    beside: dict[str, Any] = field(default_factory=dict)
    draws: bool = False  # it changes how the next rollout is drawn, and no update

    def __str__(self) -> str:
        return self.name

    @property
    def planned(self) -> set[str]:
        """Names under which it shows in the plan."""
        return set() if self.draws else set(self.beside) or {self.name}


ROWS = [
    Row("clip_cov", {"fraction": 0.1, "low": 0.0, "high": 100.0}, {"fraction": 0.0}),
    Row("kl_cov", {"fraction": 0.2}, {"coefficient": 0.0, "keep_clip": True}),
    Row("clip_higher", {"factor": 200.0}, {"factor": 1.0}),
    Row("entropy_bonus", {"coefficient": 0.1}, {"coefficient": 0.0}),
    Row("reference_kl", {"coefficient": 0.5}, {"coefficient": 0.0}),
    Row("adaptive_entropy", {"target": 50.0, "delta": 0.1}, {"delta": 0.0, "initial": 0.0}),
    Row("high_entropy_tokens", {"fraction": 0.3}, {"fraction": 1.0}),
    Row("entropy_advantage", {"alpha": 0.4}, {"alpha": 0.0}),
    Row("entropic", {"target": 50.0, "threshold": 0.5}, {"proportional": 0.0, "integral": 0.0}),
    Row("steer", {"minimum": 0.1}, {"minimum": 1.0}),
    Row(
        "repo_r",
        {"target": 50.0, "initial": 0.2, "maximum": 0.5},
        {"initial": 0.0, "minimum": 0.0, "maximum": 0.0},
    ),
    Row("adapo", {"target": 50.0, "factor": 200.0, "maximum": 1000.0}, {"factor": 1.0}),
    Row("opefo", {}, {"strength": 0.0}),
    Row("clip_b", {"mu": 0.1}, {"mu": None}),
    Row("cw_grpo", {}, {"width": None}),
    Row(
        "entrocraft",
        {"low": 50.0, "low_end": 50.0, "high": 60.0, "high_end": 60.0},
        {"low": 0.0, "low_end": 0.0, "high": 100.0, "high_end": 100.0},
    ),
    Row("archer", {"coefficient": 0.5}, {"wide": 1.0, "coefficient": 0.0}),
    Row("positive_reweighting", {"target": 50.0, "delta": 0.5}, {"delta": 0.0, "initial": 1.0}),
    Row("epo", {"coefficient": 0.1}, {"coefficient": 0.0}),
    Row("flexible_clip", {"offset": 200.0, "slope": -100.0}, {"offset": 1.0, "slope": 0.0}),
    Row("rl_zvp", {"alpha": 1000.0}, {"alpha": 0.0}),
    Row("lp_reg", {"fraction": 1.0, "keep": 0.3, "coefficient": 10.0}, {"coefficient": 0.0}),
    Row("ucas", {}, {"positive": 0.0, "negative": 0.0, "logit": 0.0}),
    Row("temperature_controller", {"target": 50.0}, {"gain": 0.0}, draws=True),
    Row("sequence_mask", {"limit": 0.05}, {"limit": None}),
    Row("entropy_ratio_clip", {"low": 0.3, "high": 3.0}, {"low": 0.0, "high": None}),
    Row("dynamic_clip", {}, {"low": None, "high": None}),
    Row("balanced_clip", {"share": 0.9}, {"share": 0.0, "low": None, "high": None}),
    Row("importance_correction", {"mode": "mask", "floor": 0.9, "cap": 1.1}, {}),
    Row(
        "entropy_budget",
        {"target": 50.0, "maximum": 0.1},
        {"proportional": 0.0, "integral": 0.0},
        beside={"entropy_bonus": {"_target_": "ecrl.callbacks.EntropyBonus", "coefficient": 0.0}},
    ),
    Row("drop_late", {"position": 3}, {"position": 10**6}, "tests.support.outside.DropLate"),
]


def node(row: Row, settings: dict[str, Any]) -> dict[str, Any]:
    """The config of the strategy with these settings; its YAML says which class that is."""
    preset = resources.files("ecrl.configs") / "strategy" / f"{row.name}.yaml"
    target = row.target or yaml.safe_load(preset.read_text())[row.name]["_target_"]
    return row.beside | {row.name: {"_target_": target, **settings}}


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
    scorer = Scorer(config, path, load_tokenizer(path), process_group)
    module = PolicyModule(config, build(config.objective), strategies, scorer)
    trainer.callbacks = [*strategies, Spy()]  # type: ignore[attr-defined]
    trainer.strategy.connect(module)
    trainer.strategy.setup_environment()
    module.trainer = trainer
    module.configure_model()
    perturb(module, seed=1)  # away from the initial policy, or a reference KL would have no gradient
    for strategy in strategies:
        strategy.setup(trainer, module, "fit")
    return module


@torch.no_grad()
def perturb(module: PolicyModule, seed: int, size: float = 0.02) -> None:
    """Add noise to all weights, as an update would."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.model.parameters():
        noise = size * torch.randn(parameter.shape, generator=random)
        write_whole(parameter, full_tensor(parameter) + noise.to(parameter.device))


def autocast(module: PolicyModule) -> AbstractContextManager[None]:
    """Compute in the trainer's precision, as rollouts and training steps do."""
    context: AbstractContextManager[None] = module.trainer.precision_plugin.forward_context()
    return context


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
            reward = float(torch.rand(1, generator=random))
            turn = Turn([], completion, reward)
            trajectories.append(
                Trajectory(prompt, [turn], problem, copy, reward, True, False, {}, None, "", "")
            )
    batch = replace(build_batch(trajectories, iteration=0), temperature=module.temperature)
    with autocast(module):
        logprobs, entropy = module.scorer.score(batch)
    noise = 0.3 * torch.randn(logprobs.shape, generator=random)
    batch = replace(batch, old_logprobs=logprobs + noise, old_entropy=entropy)
    return prepared(module, with_mismatch(batch, random), trajectories)


def with_mismatch(batch: RolloutBatch, random: torch.Generator) -> RolloutBatch:
    """Let the engine's log-probs be the trainer's but for noise."""
    mismatch = 0.1 * torch.randn(batch.old_logprobs.shape, generator=random)
    return replace(batch, engine_logprobs=batch.old_logprobs + mismatch)


def prepared(module: PolicyModule, batch: RolloutBatch, trajectories: Sequence[Trajectory]) -> RolloutBatch:
    """Let strategies and objective see a rollout, as the data module does."""
    module.policy_entropy = float(batch.old_entropy.mean())
    columns: dict[str, Tensor] = {}
    with autocast(module):
        for strategy in module.strategies:
            if hasattr(strategy, "on_rollout"):
                strategy.on_rollout(module, trajectories)
            columns |= strategy.extra_columns(batch)
        if module.objective.needs_reference and REFERENCE_LOGPROBS not in columns:
            columns[REFERENCE_LOGPROBS] = module.scorer.reference_logprobs(batch)
    if module.objective.auxiliary:  # the model itself has no part in one minibatch
        random = torch.Generator().manual_seed(0)
        columns[PROCESS_REWARDS] = 0.1 * torch.randn(batch.old_logprobs.shape, generator=random)
    return with_advantages(replace(batch, columns=columns), module.objective)


def gradient(module: PolicyModule, batch: RolloutBatch) -> tuple[float, Tensor, LossPlan]:
    """Loss, gradient and plan of one optimizer minibatch."""
    module.zero_grad()
    with autocast(module):
        loss = module.accumulate(batch)
    (spy,) = [c for c in module.trainer.callbacks if isinstance(c, Spy)]  # type: ignore[attr-defined]
    parts = [full_tensor(p.grad).flatten() for p in module.model.parameters() if p.grad is not None]
    return loss, torch.cat(parts), spy.plan
