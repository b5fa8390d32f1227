"""The LightningModule: one ``training_step`` is one optimizer step over any number of micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ecrl.batch import RolloutBatch, TokenBatch, Trajectory
from ecrl.config import Config
from ecrl.datamodule import env_name, rollout_entropy, rollout_metrics, validation_metrics
from ecrl.errors import NonFiniteError
from ecrl.hashing import hash_u64
from ecrl.layout import Layout, make_layouts
from ecrl.metrics import MetricsRecorder, Record
from ecrl.mixins import PlanObserver, RolloutObserver, Strategy
from ecrl.model import PolicyModel, load_policy
from ecrl.objective import Objective
from ecrl.planning import Plan, make_plan, planned_loss


def finished_iterations(trainer: L.Trainer) -> int:
    """Finished iterations. Lightning's ``current_epoch`` lags behind while an epoch's end hooks run."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


class PolicyModule(L.LightningModule):
    """Trains a causal LM by policy gradient with entropy control.

    Args:
        config: the run's configuration.
        path: directory or hub id of the initial policy.
        tokenizer: the policy's.
        objective: estimator, surrogate, bounds, aggregation, filters.
        strategies: the entropy-control stack, in config order.

    Attributes:
        model: the policy; set by ``configure_model``.
        recorder: what the current iteration reports.
        report: what the last finished iteration reported.
        rollout_entropy: policy entropy of the last rollout, nats.
    """

    automatic_optimization = False

    def __init__(
        self,
        config: Config,
        path: str,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        strategies: Sequence[Strategy],
    ) -> None:
        super().__init__()
        self.config = config
        self.path = path
        self.tokenizer = tokenizer
        self.objective = objective
        self.strategies = list(strategies)
        self.model: PolicyModel
        self.recorder = MetricsRecorder()
        self.report = Record()
        self.rollout_entropy = float("nan")
        self._reference: list[PolicyModel] = []  # in a list: no submodule, so not saved and not trained
        self._validation: list[tuple[list[Trajectory], list[Trajectory]]] = []

    # ---------------------------------------------------------------- set-up

    def configure_model(self) -> None:
        """Load the policy. A sharding plan is applied here, to ``self.model`` as the root."""
        if "model" not in self._modules:
            self.model = load_policy(self.path, self.tokenizer)
            self.model.check_head()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at a constant learning rate."""
        update = self.config.update
        return torch.optim.AdamW(self.model.parameters(), lr=update.lr, weight_decay=update.weight_decay)

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return finished_iterations(self.trainer)

    @property
    def version(self) -> int:
        """Version of the weights: optimizer steps so far."""
        return self.trainer.global_step

    # ---------------------------------------------------------------- rollout

    def observe_rollout(self, trajectories: Sequence[Trajectory]) -> None:
        """Record what a rollout says, before any filter."""
        for name, value in rollout_metrics(trajectories).items():
            self.recorder.record(name, value)
        self.rollout_entropy = rollout_entropy(trajectories)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RolloutObserver):
                callback.on_rollout(self, trajectories)

    def prepare(self, batch: RolloutBatch, exact: bool) -> RolloutBatch:
        """Complete a fresh batch: log-probs unless the engine's are exact, strategies' columns."""
        with self.recorder.timer("score"):
            if not exact:
                logprobs, entropy = self.score(self.model, batch)
                batch = replace(batch, old_logprobs=logprobs, old_entropy=entropy)
            columns = dict(batch.columns)
            for strategy in self.strategies:
                columns |= strategy.columns(batch)
        return replace(batch, columns=columns)

    @torch.no_grad()
    def score(self, model: PolicyModel, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """Compute log-probs ``[N]`` and entropies ``[N]`` of a batch without gradient, nats."""
        logprobs = torch.empty_like(batch.old_logprobs)
        entropy = torch.empty_like(batch.old_logprobs)
        for layout in self._layouts(batch):
            part_logprobs, part_entropy = model(layout, self.config.rollout.temperature)
            logprobs[layout.order] = part_logprobs.to(logprobs)
            entropy[layout.order] = part_entropy.to(entropy)
        return logprobs, entropy

    def reference_logprobs(self, batch: RolloutBatch) -> Tensor:
        """Log-probs ``[N]`` of the initial policy, which is loaded and frozen at first use."""
        if not self._reference:
            reference = load_policy(self.path, self.tokenizer)
            self._reference.append(reference.to(self.device).eval().requires_grad_(False))
        return self.score(self._reference[0], batch)[0]

    def _layouts(self, batch: RolloutBatch) -> list[Layout]:
        if not batch.num_tokens:
            return []
        return make_layouts(batch, self.config.update.max_tokens, self.config.update.row_tokens)

    # ---------------------------------------------------------------- update

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Plan globally, accumulate the gradient over micro-batches, step once."""
        if not batch.num_tokens:
            return
        optimizer: Any = self.optimizers()
        with self.recorder.timer("update"):
            optimizer.zero_grad()
            loss = self.accumulate(batch)
            norm = self._clip(loss)
            optimizer.step()
        self.recorder.record("policy/loss", loss)
        self.recorder.record("policy/grad_norm", norm)

    def accumulate(self, batch: RolloutBatch) -> float:
        """Add the gradient of the minibatch's loss; return the loss."""
        layouts = self._layouts(batch)
        key = int(hash_u64(self.config.seed, self.version)) >> 1
        bounds = self.objective.bounds
        tokens = batch.tokens(key, 1 - bounds.low, 1 + bounds.high)
        # The stored log-probs are the current ones on the first minibatch after a rollout.
        needs_current = not batch.fresh and any(s.needs_current for s in self.strategies)
        # With a single micro-batch its own forward pass serves planning as well.
        shared_pass = len(layouts) == 1
        scored = [self._score_tokens(layouts[0], tokens)] if shared_pass else []
        if needs_current and shared_pass:
            tokens = replace(tokens, logprobs=scored[0].logprobs.detach(), entropy=scored[0].entropy.detach())
        elif needs_current:
            with self.recorder.timer("plan"):
                logprobs, entropy = self.score(self.model, batch)
            tokens = replace(tokens, logprobs=logprobs, entropy=entropy)
        plan = make_plan(tokens, self.objective, self.strategies)
        self._observe_plan(plan, batch)
        total = 0.0
        for layout in layouts:
            part = scored.pop() if scored else self._score_tokens(layout, tokens)
            total += self._backward(part, plan if shared_pass else plan.select(layout.order))
        return total

    def _score_tokens(self, layout: Layout, tokens: TokenBatch) -> TokenBatch:
        logprobs, entropy = self.model(layout, self.config.rollout.temperature)
        part = tokens if len(layout.order) == len(tokens) else tokens.select(layout.order)
        return replace(
            part, logprobs=logprobs.to(part.old_logprobs.device), entropy=entropy.to(part.entropy.device)
        )

    def _backward(self, tokens: TokenBatch, plan: Plan) -> float:
        tokens = replace(
            tokens, advantages=plan.tokens.advantages, low=plan.tokens.low, high=plan.tokens.high
        )
        loss = planned_loss(tokens, plan, self.objective, self.strategies)
        if loss.requires_grad:
            self.manual_backward(loss)
        self._observe_tokens(tokens)
        return float(loss.detach())

    def _clip(self, loss: float) -> float:
        """Clip the gradient to the configured norm; return the norm before.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; the weights were not touched.
        """
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        for name, value in (("loss", loss), ("gradient norm", float(norm))):
            if not torch.isfinite(torch.tensor(value)):
                raise NonFiniteError(
                    f"The {name} became {value} in iteration {self.iteration + 1}, optimizer step "
                    f"{self.version + 1}; the weights were left as they were before that step."
                )
        if self.config.update.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.update.grad_clip, norm)
        return float(norm)

    # ---------------------------------------------------------------- observation

    def _observe_plan(self, plan: Plan, batch: RolloutBatch) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PlanObserver):
                callback.on_plan(self, plan, fresh=batch.fresh)
        for strategy in self.strategies:
            if strategy.name in plan.touched:
                self.recorder.record(f"strategy/{strategy.name}/fraction", plan.touched[strategy.name])
            coefficient = strategy.coefficient()
            if coefficient is not None:
                self.recorder.record(f"strategy/{strategy.name}/coefficient", coefficient)

    @torch.no_grad()
    def _observe_tokens(self, tokens: TokenBatch) -> None:
        count = len(tokens)
        log_ratio = tokens.log_ratio.detach()
        for name, values in {
            "policy/ratio": log_ratio.exp(),
            "policy/clip_high": tokens.clipped_high.float(),
            "policy/clip_low": tokens.clipped_low.float(),
            # k3 of KL(π_old‖π): the samples are π_old's.
            "policy/kl_behaviour": torch.expm1(log_ratio) - log_ratio,
        }.items():
            self.recorder.record(name, float(values.mean()), count)

    # ---------------------------------------------------------------- validation

    def validation_step(self, batch: Sequence[int], batch_idx: int) -> None:
        """Answer a chunk of the validation problems."""
        with self.recorder.timer("validate"):
            self._validation.append(self.trainer.datamodule.validate(batch))  # type: ignore[attr-defined]

    def on_validation_epoch_end(self) -> None:
        """Record the validation metrics over all chunks."""
        sampled = [t for chunk, _ in self._validation for t in chunk]
        greedy = [t for _, chunk in self._validation for t in chunk]
        self._validation.clear()
        numbers = validation_metrics(sampled, greedy, env_name(self.config.env.id))
        for name, value in numbers.items():
            self.recorder.record(name, value)
        # Also to Lightning, so that its own callbacks can monitor them.
        self.log_dict(numbers, logger=False)
