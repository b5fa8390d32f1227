"""The LightningModule: one ``training_step`` is one optimizer step over any number of micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan, planned_loss
from ecrl.algorithm.mismatch import mismatch
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.schema import Config
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.sharding import Sharding, clip_gradients, gradient_norm
from ecrl.errors import NonFiniteError, usage_errors
from ecrl.hashing import hash_u64
from ecrl.metrics import MetricsRecorder, Record
from ecrl.policy.attention import row_limit
from ecrl.policy.lora import without_adapters
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import MicroBatch, pack_micro_batches
from ecrl.rollout.batching import build_batch, sequence_entropy
from ecrl.rollout.queue import Rollout
from ecrl.rollout.rollout_metrics import env_name, rollout_entropy, rollout_metrics, validation_metrics
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.observer import PlanObserver, RolloutObserver

#: Ratios of trainer to engine beyond these count into ``mismatch/outside``.
MISMATCH_BOUNDS = 0.5, 2.0


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
        process_group: the processes that share the work.

    Attributes:
        model: the policy; set by ``configure_model``.
        recorder: what the current iteration reports.
        report: what the last finished iteration reported.
        rollout_entropy: policy entropy of the last rollout, nats.
        temperature: of the softmax that the next rollout is drawn with.
    """

    automatic_optimization = False

    def __init__(
        self,
        config: Config,
        path: str,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        strategies: Sequence[Strategy],
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.path = path
        self.tokenizer = tokenizer
        self.objective = objective
        self.strategies = list(strategies)
        self.process_group = process_group or ProcessGroup()
        self.model: PolicyModel
        self.recorder = MetricsRecorder()
        self.report = Record()
        self.rollout_entropy = float("nan")
        self.temperature = config.rollout.temperature
        self._reference: list[PolicyModel] = []  # in a list: no submodule, so not saved and not trained
        self._validation: list[tuple[list[Trajectory], list[Trajectory]]] = []

    # ---------------------------------------------------------------- set-up

    def configure_model(self) -> None:
        """Load the policy and spread it over the processes."""
        if "model" not in self._modules:
            trainer = self.config.trainer
            self._sharding = Sharding(
                self.device_mesh if self.process_group.processes > 1 else None,
                shard=self.process_group.processes > 1 and trainer.parallel != "ddp",
                bf16=trainer.precision == "bf16-mixed",
                cpu_offload=trainer.cpu_offload,
            )
            self.model = self._load(adapters=True)
            self.model.check_head()

    def _load(self, adapters: bool) -> PolicyModel:
        device = self.trainer.strategy.root_device
        settings, seed = self.config.model, self.config.seed
        return load_sharded_policy(
            self.path, self.tokenizer, settings, self._sharding, device, seed, adapters
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at a constant learning rate, over what is trained."""
        update = self.config.update
        # Loops over all parameters take one mesh; a split model has two, with and without its norms.
        foreach = None if self.config.trainer.tensor_parallel_size == 1 else False
        return torch.optim.AdamW(
            self._trained(), lr=update.lr, weight_decay=update.weight_decay, foreach=foreach
        )

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return finished_iterations(self.trainer)

    @property
    def version(self) -> int:
        """Version of the weights: optimizer steps so far."""
        return self.trainer.global_step

    # ---------------------------------------------------------------- rollout

    def prepare(self, rollout: Rollout, exact: bool) -> RolloutBatch:
        """Turn a rollout into a batch: log-probs unless the engine's are exact, strategies' columns.

        Args:
            rollout: all that was drawn.
            exact: the engine's log-probs and entropies are those of the present weights.
        """
        batch = self._build(rollout, rollout.kept)
        with self.recorder.timer("score"):
            if exact:
                self.rollout_entropy = rollout_entropy(rollout.drawn)
            else:
                batch = self._rescore(batch)
                dropped = sorted(set(range(len(rollout.drawn))) - set(rollout.kept))
                rest = self._rescore(self._build(rollout, dropped))
                self.rollout_entropy = float(
                    torch.cat([sequence_entropy(batch), sequence_entropy(rest)]).mean()
                )
        self._observe_rollout(rollout.drawn, batch)
        with self.recorder.timer("score"):
            columns = dict(batch.columns)
            for strategy in self.strategies:
                columns |= strategy.extra_columns(batch)
        return replace(batch, columns=columns)

    def _build(self, rollout: Rollout, index: Sequence[int]) -> RolloutBatch:
        batch = build_batch([rollout.drawn[i] for i in index], self.objective, rollout.iteration)
        return replace(batch, temperature=rollout.temperature)

    def _rescore(self, batch: RolloutBatch) -> RolloutBatch:
        logprobs, entropy = self.score(self.model, batch)
        return replace(batch, old_logprobs=logprobs, old_entropy=entropy)

    def _observe_rollout(self, trajectories: Sequence[Trajectory], batch: RolloutBatch) -> None:
        """Record what a rollout says, before any filter, and how far the engine is from the trainer."""
        apart = mismatch(batch.old_logprobs, batch.engine_logprobs, *MISMATCH_BOUNDS)
        for name, value in (rollout_metrics(trajectories) | apart).items():
            self.recorder.record(name, value)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RolloutObserver):
                callback.on_rollout(self, trajectories)

    @torch.no_grad()
    def score(self, model: PolicyModel, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """Compute log-probs ``[N]`` and entropies ``[N]`` of a batch without gradient, nats.

        Each process scores its share; all get all.
        """
        joint = batch.old_logprobs.new_zeros(2, batch.num_tokens)
        for micro_batch in self._micro_batches(batch):
            joint[:, micro_batch.order] = torch.stack(model(micro_batch, batch.temperature)).to(joint)
        logprobs, entropy = self.process_group.sum(joint)
        return logprobs, entropy

    def reference_logprobs(self, batch: RolloutBatch) -> Tensor:
        """Log-probs ``[N]`` of the initial policy: the model without its adapters, or a frozen copy."""
        if self.config.model.lora.r:
            with without_adapters(self.model.lm):
                return self.score(self.model, batch)[0]
        if not self._reference:
            self._reference.append(self._load(adapters=False).eval().requires_grad_(False))
        return self.score(self._reference[0], batch)[0]

    def _micro_batches(self, batch: RolloutBatch) -> list[MicroBatch]:
        if not batch.num_tokens:
            return []
        update = self.config.update
        row_tokens = row_limit(self.model.attention, update.max_tokens, update.row_tokens)
        with usage_errors("update."):
            return pack_micro_batches(
                batch.sequences,
                update.max_tokens,
                row_tokens,
                self.process_group.rank,
                self.process_group.size,
            )

    # ---------------------------------------------------------------- update

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """LossPlan globally, accumulate the gradient over micro-batches, step once."""
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
        """Add the gradient of the minibatch's loss; return the loss.

        Every process plans over all tokens, from the same numbers, and passes over its own share.
        """
        micro_batches = self._micro_batches(batch)
        key = int(hash_u64(self.config.seed, self.version)) >> 1
        bounds = self.objective.bounds
        tokens = batch.tokens(key, 1 - bounds.low, 1 + bounds.high)
        # The stored log-probs are the current ones on the first minibatch after a rollout.
        needs_current = not batch.fresh and any(s.needs_current for s in self.strategies)
        # With a single micro-batch its own forward pass serves planning as well.
        shared_pass = len(micro_batches) == 1
        scored = [self._score_tokens(micro_batches[0], tokens, batch.temperature)] if shared_pass else []
        if needs_current and shared_pass:
            tokens = self._join(tokens, micro_batches, scored)
        elif needs_current:
            with self.recorder.timer("plan"):
                logprobs, entropy = self.score(self.model, batch)
            tokens = replace(tokens, logprobs=logprobs, entropy=entropy)
        plan = make_loss_plan(tokens, self.objective, self.strategies)
        self._observe_plan(plan, batch)
        total = torch.zeros(1, dtype=torch.float64)
        done = []
        for micro_batch in micro_batches:
            part = scored.pop() if scored else self._score_tokens(micro_batch, tokens, batch.temperature)
            total += self._backward(
                part, plan if len(micro_batch.order) == len(tokens) else plan.select(micro_batch.order)
            )
            done.append(replace(part, logprobs=part.logprobs.detach(), entropy=part.entropy.detach()))
        self._sharding.sum_gradients(self.model.parameters())
        self._observe_tokens(self._join(plan.tokens, micro_batches, done))
        return float(self.process_group.sum(total))

    def _score_tokens(self, micro_batch: MicroBatch, tokens: TokenBatch, temperature: float) -> TokenBatch:
        logprobs, entropy = self.model(micro_batch, temperature)
        part = tokens if len(micro_batch.order) == len(tokens) else tokens.select(micro_batch.order)
        return replace(
            part, logprobs=logprobs.to(part.old_logprobs.device), entropy=entropy.to(part.entropy.device)
        )

    def _join(
        self, tokens: TokenBatch, micro_batches: list[MicroBatch], parts: list[TokenBatch]
    ) -> TokenBatch:
        """Give all tokens their current log-probs and entropies, from every process's parts."""
        joint = tokens.old_logprobs.new_zeros(2, len(tokens))
        for micro_batch, part in zip(micro_batches, parts, strict=True):
            joint[:, micro_batch.order] = torch.stack([part.logprobs.detach(), part.entropy.detach()])
        logprobs, entropy = self.process_group.sum(joint)
        return replace(tokens, logprobs=logprobs, entropy=entropy)

    def _backward(self, tokens: TokenBatch, plan: LossPlan) -> float:
        tokens = replace(
            tokens, advantages=plan.tokens.advantages, low=plan.tokens.low, high=plan.tokens.high
        )
        loss = planned_loss(tokens, plan, self.objective, self.strategies)
        if loss.requires_grad:
            self.manual_backward(loss * self._sharding.loss_scale)
        return float(loss.detach())

    def _clip(self, loss: float) -> float:
        """Clip the gradient to the configured norm; return the norm before.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; the weights were not changed_fraction.
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
        for strategy in self.strategies:
            if strategy.name in plan.changed_fraction:
                self.recorder.record(
                    f"strategy/{strategy.name}/fraction", plan.changed_fraction[strategy.name]
                )
            coefficient = strategy.logged_coefficient()
            if coefficient is not None:
                self.recorder.record(f"strategy/{strategy.name}/coefficient", coefficient)

    def _observe_tokens(self, tokens: TokenBatch) -> None:
        """Record facts over all tokens of the minibatch, whichever process scored them."""
        count = len(tokens)
        log_ratio = tokens.log_ratio
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
