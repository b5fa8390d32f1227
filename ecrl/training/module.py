"""The LightningModule: one ``training_step`` is one optimizer step over any number of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan, planned_loss, planning_tokens
from ecrl.algorithm.losses import kl_k3
from ecrl.algorithm.mismatch import mismatch
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.schema import Config
from ecrl.distributed.lightning_strategies import MeshStrategy, load_trained
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.sharding import clip_gradients, gradient_norm
from ecrl.errors import NonFiniteError
from ecrl.metrics import MetricsRecorder, Record
from ecrl.policy.model import PolicyModel
from ecrl.policy.optimizer import build_optimizer, schedule, set_learning_rate
from ecrl.training.auxiliary import AuxiliaryModel
from ecrl.training.observer import DataObserver, PlanObserver
from ecrl.training.scoring import ForwardPasses, Scorer
from ecrl.training.validation import Evaluation


def finished_iterations(trainer: L.Trainer) -> int:
    """Number of finished iterations. In an epoch's end hooks Lightning's ``current_epoch`` is one less."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


@dataclass(frozen=True)
class Parent:
    """The checkpoint that a fork begins with.

    Attributes:
        folder: where it is.
        config: the configuration of the run that wrote it.
    """

    folder: Path
    config: Config

    @property
    def auxiliary(self) -> list[str]:
        """Names of its auxiliary models."""
        return list(self.config.objective.get("auxiliary") or {})


class PolicyModule(L.LightningModule):
    """Trains a causal LM by policy gradient with entropy control.

    Args:
        config: the run's configuration.
        objective: estimator, surrogate, bounds, aggregation, filters.
        strategies: the entropy-control stack, in config order.
        scorer: loads and scores the policy.

    Attributes:
        model: the policy; set by ``configure_model``.
        recorder: collects the metrics of the current iteration.
        report: the metrics of the last finished iteration.
        policy_entropy: mean entropy of the responses that train, under the policy before the update, nats;
            where no group trains, of all that was drawn, or NaN if the engine gives no entropies. With
            ``rollout.old_logprobs=engine`` the engine's; after the first minibatch, that minibatch's own.
        evaluation: of the last validation.
        temperature: of the softmax that the next rollout is drawn with.
        run_dir: folder of the run; None where nothing is written.
        parent: the checkpoint that a fork begins with; None for other runs.
    """

    automatic_optimization = False

    def __init__(
        self, config: Config, objective: Objective, strategies: Sequence[Strategy], scorer: Scorer
    ) -> None:
        super().__init__()
        self.config = config
        self.objective = objective
        self.strategies = list(strategies)
        self.scorer = scorer
        self.tokenizer = scorer.tokenizer
        self.model: PolicyModel
        self.recorder = MetricsRecorder()
        self.report = Record()
        self.auxiliary: list[AuxiliaryModel] = []  # a plain list: the models are registered one by one
        self.policy_entropy = float("nan")
        self.temperature = config.rollout.temperature
        self.run_dir: Path | None = None
        self.evaluation = Evaluation({}, {})
        self.parent: Parent | None = None
        update = config.update
        self._schedule = schedule(update.schedule, config.iterations * update.minibatches * update.epochs)

    # ---------------------------------------------------------------- set-up

    def configure_model(self) -> None:
        """Load the policy and shard it over the processes."""
        if "model" not in self._modules:
            mesh = self.device_mesh if isinstance(self.trainer.strategy, MeshStrategy) else None
            self.model = self.scorer.load(self.trainer.strategy.root_device, mesh)
            for name, task in self.objective.auxiliary.items():
                self.auxiliary.append(AuxiliaryModel(name, task, self.scorer))
                # A submodule, so that the checkpoint holds it.
                self.add_module(f"auxiliary_{name}", self.auxiliary[-1].model)
            if self.parent is not None:
                self._take_weights(self.parent)

    def _take_weights(self, parent: Parent) -> None:
        """Begin with a parent's policy, and with those auxiliary models that it has."""
        load_trained(self.model, parent.folder)
        for auxiliary in self.auxiliary:
            if auxiliary.name in parent.auxiliary:
                load_trained(auxiliary.model, parent.folder, f"auxiliary_{auxiliary.name}")

    def on_fit_start(self) -> None:
        """Take over the state of a parent's optimizers where they are the same."""
        if self.parent is None:
            return
        strategy: Any = self.trainer.strategy
        folder, ours, theirs = self.parent.folder, self.config, self.parent.config
        if ours.update.optimizer["_target_"] == theirs.update.optimizer["_target_"]:
            strategy.load_optimizer(0, 0, folder)
        for number, auxiliary in enumerate(self.auxiliary, start=1):
            if auxiliary.name in (names := self.parent.auxiliary):
                strategy.load_optimizer(number, 1 + names.index(auxiliary.name), folder)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The policy's optimizer, then the auxiliary models' own."""
        policy = build_optimizer(self.config.update, self.model)
        return [policy, *(auxiliary.optimizer for auxiliary in self.auxiliary)]

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def process_group(self) -> ProcessGroup:
        """The processes that share the work."""
        return self.scorer.process_group

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return finished_iterations(self.trainer)

    @property
    def version(self) -> int:
        """Version of the weights: optimizer steps so far."""
        return self.trainer.global_step

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""
        return self.config.update.lr * self._schedule(self.version)

    # ---------------------------------------------------------------- update

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Accumulate the gradient of the optimizer minibatch, then step once."""
        if not batch.num_tokens:
            return
        optimizers: Any = self.optimizers()
        # Lightning gives a single optimizer as it is.
        optimizer = optimizers[0] if isinstance(optimizers, list) else optimizers
        with self.recorder.timer("update"):
            optimizer.zero_grad()
            loss = self.accumulate(batch)
            norm = self._clip(loss)
            set_learning_rate(optimizer, self.learning_rate)
            optimizer.step()
        self.recorder.record("policy/loss", loss)
        self.recorder.record("policy/grad_norm", norm)

    def accumulate(self, batch: RolloutBatch) -> float:
        """Add the gradient of the minibatch's loss; return the loss.

        Every process plans over all tokens, from the same numbers, and passes over its own share.
        """
        passes = ForwardPasses(self.scorer, batch)
        tokens = self._tokens(batch, passes)
        plan = make_loss_plan(tokens, self.objective, self.strategies)
        total = torch.zeros(1, dtype=torch.float64)
        for order, logprobs, entropy in passes:
            part = plan if len(order) == len(tokens) else plan.select(order)
            total += self._backward(replace(part.tokens, logprobs=logprobs, entropy=entropy), part)
        self.scorer.sharding.sum_gradients(self.model.parameters())
        logprobs, entropy = passes.scored()
        tokens = replace(plan.tokens, logprobs=logprobs, entropy=entropy)
        # Where the engine's log-probs stand for the old ones, only the passes know the policy's own.
        self._observe_plan(plan if batch.own_logprobs else replace(plan, tokens=tokens), batch)
        self._observe_tokens(tokens)
        if batch.fresh and not batch.own_logprobs:
            self._observe_old_policy(tokens)
        return float(self.process_group.sum(total))

    def _tokens(self, batch: RolloutBatch, passes: ForwardPasses) -> TokenBatch:
        """View the minibatch as planning sees it."""

        def current() -> tuple[Tensor, Tensor]:
            with self.recorder.timer("plan"):
                return passes.current()

        seed = self.config.seed
        return planning_tokens(batch, self.objective, self.strategies, seed, self.version, current)

    def _backward(self, tokens: TokenBatch, plan: LossPlan) -> float:
        """Add the gradient of one micro-batch's share of the loss; return the share."""
        loss = planned_loss(tokens, plan, self.objective, self.strategies)
        if loss.requires_grad:
            self.manual_backward(loss * self.scorer.sharding.loss_scale)
        return float(loss.detach())

    def _clip(self, loss: float) -> float:
        """Clip the gradient to the configured norm; return the norm before.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; the weights were not changed.
        """
        trained = self._trained()
        norm = gradient_norm(trained)
        for name, value in (("loss", loss), ("gradient norm", float(norm))):
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"The {name} became {value} in iteration {self.iteration + 1}, optimizer step "
                    f"{self.version + 1}; the weights were left as they were before that step."
                )
        if self.config.update.grad_clip:
            clip_gradients(trained, norm, self.config.update.grad_clip)
        return float(norm)

    # ---------------------------------------------------------------- observation

    def _observe_plan(self, plan: LossPlan, batch: RolloutBatch) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PlanObserver):
                callback.on_plan(self, plan, fresh=batch.fresh)
        for name, fraction in plan.changed_fraction.items():
            self.recorder.record(f"strategy/{name}/fraction", fraction)
        for strategy in self.strategies:
            coefficient = strategy.logged_coefficient()
            if coefficient is not None:
                self.recorder.record(f"strategy/{strategy.name}/coefficient", coefficient)

    def _observe_tokens(self, tokens: TokenBatch) -> None:
        """Record facts over all tokens of the minibatch, whichever process scored them."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, DataObserver):
                callback.on_tokens(self, tokens)
        count = len(tokens)
        _, clipped_low, clipped_high = self.objective.surrogate(tokens)
        facts: dict[str, Tensor | None] = {
            "policy/ratio": tokens.ratio,
            "policy/clip_high": clipped_high,
            "policy/clip_low": clipped_low,
            # k3 of KL(π_old‖π): the samples are π_old's.
            "policy/kl_behaviour": kl_k3(-tokens.log_ratio),
        }
        for name, values in facts.items():
            self.recorder.record(name, 0.0 if values is None else float(values.float().mean()), count)

    def _observe_old_policy(self, tokens: TokenBatch) -> None:
        """Record what scoring the rollout would have told, from the tokens of its first minibatch."""
        self.policy_entropy = float(tokens.per_sequence_mean(tokens.entropy).mean())
        distance = mismatch(tokens.logprobs, tokens.engine_logprobs)
        for name, value in distance.items():
            self.recorder.record(name, value)

    # ---------------------------------------------------------------- validation

    def validation_step(self, batch: Evaluation, batch_idx: int) -> None:
        """Take what the policy earned on the validation sets."""
        self.evaluation = batch

    def on_validation_epoch_end(self) -> None:
        """Record the validation metrics."""
        for name, value in self.evaluation.metrics.items():
            self.recorder.record(name, value)
        # Also to Lightning, so that its own callbacks can monitor them.
        self.log_dict(self.evaluation.metrics, logger=False)
