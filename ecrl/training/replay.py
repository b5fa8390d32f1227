"""Plans an iteration's update once more, offline, on the tokens that a run wrote to ``rollouts/``.

The strategies act through the framework's own planning, so that what they choose is what training would have
chosen. The log-probs are those of the run's weights at each optimizer minibatch: for the run's own strategies
all minibatches are exact; with others the first one is, and before a later one the run made its own updates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan, planning_tokens
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.distributed.lightning_strategies import MeshStrategy, load_trained
from ecrl.policy.model import load_tokenizer
from ecrl.rollout.batching import split_minibatches
from ecrl.runs.checkpoints import find_checkpoint, iteration_of, saved_iterations
from ecrl.runs.metrics_file import read_metrics
from ecrl.runs.rollouts import facts_of
from ecrl.training.module import PolicyModule
from ecrl.training.observer import RolloutObserver
from ecrl.training.replayed_batch import ENTROPY, LOGPROBS, plain, read_trained, trained_batch
from ecrl.training.scoring import Scorer
from ecrl.training.trainer import connect, make_trainer, quiet
from ecrl.training.warmup import cached_base


@dataclass(frozen=True)
class Minibatch:
    """An optimizer minibatch, planned once more.

    Attributes:
        number: its place in the iteration, from 0.
        tokens: as planning saw them, before any strategy.
        plan: what the strategies made of them.
        rows: ``[B]`` long, the row in the part of each sequence.
    """

    number: int
    tokens: TokenBatch
    plan: LossPlan
    rows: Tensor


@dataclass(frozen=True)
class Replay:
    """An iteration's update, planned once more.

    Attributes:
        minibatches: of the first pass over the rollout.
        strategies: in config order.
        texts: of the tokens of each row that trained.
        notes: what a reader should know, a line each.
    """

    minibatches: list[Minibatch]
    strategies: list[Strategy]
    texts: Mapping[int, list[str]]
    notes: list[str] = field(default_factory=list)


class _Moment(PolicyModule):
    """A policy module at an iteration of a run, without a training loop."""

    at = 0
    step = 0

    @property
    def iteration(self) -> int:
        """Number of finished iterations."""
        return self.at

    @property
    def version(self) -> int:
        """Number of optimizer steps so far."""
        return self.step


class _LazyScorer(Scorer):
    """A scorer that loads the policy when a strategy first measures something with it."""

    wanted: Callable[[], None]

    def __getattr__(self, name: str) -> Any:
        """Load the policy where it is asked for."""
        if name not in ("model", "sharding"):
            raise AttributeError(name)
        self.wanted()
        return self.__dict__[name]


def replay(
    run_dir: Path, config: Config, iteration: int, own: Mapping[str, Any], parent: Path | None = None
) -> Replay:
    """Plan an iteration's update with the strategies of a configuration.

    Args:
        run_dir: the run.
        config: the run's configuration but for its strategies.
        iteration: as in ``metrics.jsonl``, from 1.
        own: the run's own strategies, nodes by name.
        parent: the checkpoint that it began with, if it is a fork.

    Raises:
        UsageError: the rollout is not there, has no tokens, or nothing of it trained.
    """
    here = replace(
        config.trainer, accelerator="auto", devices=1, num_nodes=1, tensor_parallel_size=1, cpu_offload=False
    )
    config = replace(config, trainer=here)
    table = read_trained(run_dir, iteration)
    facts = facts_of(table)
    strategies = build_strategies(config.strategy)
    notes = [f"warning: {line}" for line in check_stack(config, strategies)]
    quiet()
    module, objective = _module(run_dir, config, strategies, iteration, parent, notes)
    module.step = facts["step"]
    _follow(run_dir, module, iteration, notes)
    batch, rows = trained_batch(table, iteration, facts)
    stored = dict(batch.columns)
    for strategy in strategies:
        if own.get(strategy.name) != config.strategy[strategy.name]:  # the run's own are in the part
            with module.trainer.precision_plugin.forward_context():
                stored |= strategy.extra_columns(plain(batch))
    batch = replace(batch, columns=stored)
    if config.update.epochs > 1:
        notes.append(f"The first of {config.update.epochs} passes over the rollout is shown.")
    minibatches = list(_plans(batch, rows, objective, strategies, config, facts["step"], iteration))
    texts = dict(zip(rows.tolist(), table["token_texts"].to_pylist(), strict=True))
    return Replay(minibatches, strategies, texts, notes)


def _module(
    run_dir: Path,
    config: Config,
    strategies: Sequence[Strategy],
    iteration: int,
    parent: Path | None,
    notes: list[str],
) -> tuple[_Moment, Objective]:
    """Make a module whose policy, if a strategy wants it, is of the last checkpoint before the iteration."""
    trainer = make_trainer(config)
    process_group = connect(trainer, config)
    path = config.model.path or str(cached_base(config))
    scorer = _LazyScorer(config, path, load_tokenizer(path), process_group)
    objective: Objective = build(config.objective)
    module = _Moment(config, objective, strategies, scorer)
    trainer.strategy.connect(module)
    trainer.strategy.setup_environment()
    module.trainer = trainer

    def load() -> None:
        mesh = module.device_mesh if isinstance(trainer.strategy, MeshStrategy) else None
        scorer.load(trainer.strategy.root_device, mesh)
        checkpoint, lag = _checkpoint_before(run_dir, iteration), iteration - 1
        if checkpoint is not None:
            lag -= iteration_of(checkpoint)
        elif parent is not None and parent.exists():
            checkpoint = parent
        if checkpoint is not None:
            load_trained(scorer.model, checkpoint)
        weights = f"the checkpoint {checkpoint}" if checkpoint else f"the base model {path}"
        late = f"{lag} iterations before the run's own" if lag else "the run's own"
        notes.append(f"What takes a pass of the policy was measured with the weights of {weights}, {late}.")

    scorer.wanted = load
    for strategy in strategies:
        strategy.setup(trainer, module, "fit")
    return module, objective


def _checkpoint_before(run_dir: Path, iteration: int) -> Path | None:
    """Return the run's last checkpoint before an iteration's update; None if it has none.

    Raises:
        UsageError: it is damaged.
    """
    before = [saved for saved in saved_iterations(run_dir) if saved < iteration]
    return find_checkpoint(run_dir, str(before[-1])) if before else None


def _follow(run_dir: Path, module: _Moment, iteration: int, notes: list[str]) -> None:
    """Bring strategies that keep a state to an iteration: they hear of the entropies of the run so far."""
    with_state = [s for s in module.strategies if type(s).state_dict is not L.Callback.state_dict]
    entropies = {
        int(row["iteration"]): row.get("policy/entropy") for row in read_metrics(run_dir / "metrics.jsonl")
    }
    for past in range(1, iteration + 1):
        module.at = past - 1
        value = entropies.get(past)
        module.policy_entropy = float("nan") if value is None else value
        for strategy in module.strategies:
            if isinstance(strategy, RolloutObserver):
                strategy.on_rollout(module, ())
    if with_state:
        names = ", ".join(s.name for s in with_state)
        notes.append(
            f"{names}: the state began at the initial one and followed policy/entropy of iterations 1 to "
            f"{iteration} in metrics.jsonl."
        )


def _plans(
    batch: RolloutBatch,
    rows: Tensor,
    objective: Objective,
    strategies: Sequence[Strategy],
    config: Config,
    step: int,
    iteration: int,
) -> Iterator[Minibatch]:
    """Plan the minibatches of the first pass, in order, as far as the run came."""
    row_of = dict(zip(batch.uid.tolist(), rows.tolist(), strict=True))
    parts = split_minibatches(batch, config.update.minibatches, 1, config.seed, iteration - 1)
    for number, part in enumerate(parts):
        if not part.num_tokens:
            continue
        scored = part.columns[LOGPROBS], part.columns[ENTROPY]
        if scored[0].isnan().any():  # the update failed before it
            return
        part = plain(part)
        tokens = planning_tokens(part, objective, strategies, config.seed, step, _always(scored))
        plan = make_loss_plan(tokens, objective, strategies)
        yield Minibatch(number, tokens, plan, torch.tensor([row_of[uid] for uid in part.uid.tolist()]))
        step += 1


def _always(scored: tuple[Tensor, Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that gives what was scored."""
    return lambda: scored
